/** The table of all of kvm-unit-tests in a document: a part for each build, between two marks that name it. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

/** @typedef {{ test: string, paging: string } & import('./unittests-verdict.mjs').Verdict} Result */

const HEAD = `# kvm-unit-tests, all of them

What \`npm run test:kvm-unit-tests -- FOLDER --all --markdown docs/kvm-unit-tests.md\` has written, a part for each build. *pass*: ends with
value 0, no FAIL, as many PASS as counted here. *skip*: says so itself. *long*: runs only when it is named. *needs*: about something that this machine does not have and
does not announce. Those that measure only, or take long, are run by name (\`--only vmexit_cpuid --markdown ...\`) and keep their row.
`;

/**
 * Puts the table of a build into a document, which is made if need be. `isPart`: rows of other tests, under the same pagings, stay.
 * A row of a test that runs only when it is named stays in any case.
 *
 * @param {string} file @param {string} arch @param {readonly Result[]} results @param {boolean} [isPart]
 * @param {readonly string[]} [pagings] under which tests have been run that may be, if the results don't say
 */
export function updateDocument(file, arch, results, isPart = false, pagings = pagingsOf(results)) {
  const before = existsSync(file) ? readFileSync(file, 'utf8') : HEAD;
  const [start, end] = [`<!-- ${arch} -->`, `<!-- end of ${arch} -->`];
  const from = before.indexOf(start);
  const to = before.indexOf(end);
  const old = from >= 0 ? before.slice(from, to) : '';
  const part = `${start}\n\n## ${arch}\n\n${join(old, tableOf(results, pagings), isPart)}\n\n${end}`;
  const after =
    from >= 0 && to > from ? before.slice(0, from) + part + before.slice(to + end.length) : `${before}\n${part}\n`;
  writeFileSync(file, after);
}

/** The rows of a table, those of the old one in their places where it is of the same pagings. @param {string} old @param {string} table @param {boolean} isPart */
function join(old, table, isPart) {
  const [head, line, ...rows] = table.split('\n');
  const oldRows = old.split('\n').filter((row) => row.startsWith('| '));
  if (oldRows[0] !== head) return table;
  const nameOf = (/** @type {string} */ row) => row.split(' | ')[0];
  const wasRun = (/** @type {string} */ row) => !row.includes('| long |');
  const oldByName = new Map(oldRows.map((row) => [nameOf(row), row]));
  if (!isPart)
    return [head, line, ...rows.map((row) => (wasRun(row) ? row : (oldByName.get(nameOf(row)) ?? row)))].join('\n');
  const fresh = new Map(rows.map((row) => [nameOf(row), row]));
  const kept = oldRows.slice(2).map((row) => fresh.get(nameOf(row)) ?? row);
  const added = rows.filter((row) => !oldRows.some((oldRow) => nameOf(oldRow) === nameOf(row)));
  return [head, line, ...kept, ...added].join('\n');
}

/** @param {readonly Result[]} results */
const pagingsOf = (results) => [...new Set(results.map((result) => result.paging))];

/** A row for each test; what differs between pagings is told for each. @param {readonly Result[]} results @param {readonly string[]} [pagings] */
export function tableOf(results, pagings = pagingsOf(results)) {
  const names = [...new Set(results.map((result) => result.test))].filter((name) =>
    results.some((result) => result.test === name && !isOfOtherBuild(result)),
  );
  const rows = names.map((name) => {
    const of = results.filter((result) => result.test === name);
    const cells = pagings.map((paging) => cellOf(of.find((result) => result.paging === paging)));
    const whys = [...new Set(of.map((result) => result.why).filter((why) => why !== ''))];
    return [name, ...cells, whys.join('; ')];
  });
  const heads = ['test', ...pagings, ''];
  const lines = [heads, heads.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ').replaceAll('\n', ' ')} |`);
  return lines.join('\n');
}

/** @param {Result} result */
const isOfOtherBuild = ({ verdict, why }) => verdict === 'skip' && / only$|^no .*\.flat$/.test(why);

/** @param {Result | undefined} result */
function cellOf(result) {
  if (result === undefined) return '';
  return result.verdict === 'pass' && result.pass > 0 ? `pass (${result.pass})` : result.verdict;
}
