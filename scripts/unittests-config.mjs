/**
 * `x86/unittests.cfg` of kvm-unit-tests: sections of `key = value`, and what QEMU is told in them in our own words. The keys have
 * changed their names over time (`extra_params` became `qemu_params` and `test_args`); both are read.
 */

/** @typedef {{ name: string, values: Record<string, string> }} Section */

/**
 * @typedef {object} UnitTest
 * @property {string} name
 * @property {string} file
 * @property {number} cpus
 * @property {string} [append]
 * @property {string} [cpu]
 * @property {string} [memory]
 * @property {string} arch '' for any
 * @property {string[]} unsupported what the test asks QEMU for and we don't have
 */

/** Of `-cpu`: what says how QEMU should use its host's CPU. */
const ABOUT_THE_HOST = /^(host-phys-bits|host-phys-bits-limit|migratable|hv_passthrough)(=|$)/;
/** Words without a meaning for us, with the one that follows and belongs to them. A PIT keeps AVIC of real processors from working. */
const WITHOUT_MEANING = /^(-enable-kvm|-overcommit \S+|-machine pit=off)$/;

/** @param {string} text @returns {Section[]} */
export function parseConfig(text) {
  /** @type {Section[]} */
  const sections = [];
  for (const [number, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    const head = /^\[([^\]]+)\]$/.exec(line);
    const pair = /^(\w+)\s*=\s*(.*)$/.exec(line);
    if (head !== null) sections.push({ name: head[1], values: {} });
    else if (pair !== null && sections.length > 0) sections[sections.length - 1].values[pair[1]] = pair[2];
    else throw new Error(`line ${number + 1}: ${JSON.stringify(line.slice(0, 60))} is neither a section nor a value`);
  }
  return sections;
}

/** @param {Section} section @param {number} epochS what `date +%s` gives @returns {UnitTest} */
export function unitTestOf({ name, values }, epochS) {
  /** @type {UnitTest} */
  const test = {
    name,
    file: values['file'] ?? '',
    cpus: Number(values['smp'] ?? 1),
    arch: values['arch'] ?? '',
    unsupported: [],
  };
  // A shell expands these; the one command in use is the date.
  const expanded = (/** @type {string} */ text) => text.replaceAll('`date +%s`', String(epochS));
  const args = splitWords(expanded(values['test_args'] ?? ''));
  if (args.length > 0) test.append = args.join(' ');
  const words = splitWords(expanded(values['qemu_params'] ?? values['extra_params'] ?? ''));
  for (let i = 0; i < words.length; i++) {
    if (WITHOUT_MEANING.test(words[i])) continue;
    if (WITHOUT_MEANING.test(`${words[i]} ${words[i + 1]}`)) i++;
    else if (words[i] === '-cpu') test.cpu = cpuOf(words[++i] ?? '');
    else if (words[i] === '-append') test.append = words[++i] ?? '';
    else if (words[i] === '-m') test.memory = memoryOf(words[++i] ?? '');
    else if (words[i] === '-smp') test.cpus = Number(words[++i]);
    else if (words[i].startsWith('-') && words[i + 1] !== undefined) test.unsupported.push(`${words[i]} ${words[++i]}`);
    else test.unsupported.push(words[i]);
  }
  // Other conditions on the host's KVM are about devices and counters that it would lend to the guest.
  if (/allow_smaller_maxphyaddr=Y/.test(values['check'] ?? '')) test.unsupported.push('allow_smaller_maxphyaddr');
  return test;
}

/**
 * Sections of our own: a section's test on another CPU. QEMU's `max` has five levels of page tables; ours has them only by name, as
 * Linux would use them.
 *
 * @type {Record<string, { name: string, cpu: string }[]>}
 */
const VARIANTS = {
  la57: [{ name: 'la57-5-levels', cpu: 'max,+la57' }],
  access: [{ name: 'access-5-levels', cpu: 'max,+la57' }],
};

/** @param {UnitTest} test @returns {UnitTest[]} */
export function variantsOf(test) {
  return (VARIANTS[test.name] ?? []).map((variant) => ({ ...test, ...variant }));
}

/** `host` is all that there is, which is what `max` means here. @param {string} text */
function cpuOf(text) {
  const [model, ...features] = text.split(',');
  return [model === 'host' ? 'max' : model, ...features.filter((f) => !ABOUT_THE_HOST.test(f))].join(',');
}

/** QEMU counts in MiB if there is no unit. @param {string} text */
function memoryOf(text) {
  return /^\d+$/.test(text) ? `${text}M` : text.toUpperCase();
}

/** As a shell does: at blanks, but for those within quotes. @param {string} text */
export function splitWords(text) {
  /** @type {string[]} */
  const words = [];
  for (const [, quoted, single, plain] of text.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g))
    words.push(quoted ?? single ?? plain);
  return words;
}
