/** How a story is shown: on a terminal as a table with its text, and as JSON. */
import { MEASURES, type Measure, measure } from '../lab/measures.ts';
import { conditions, contrast, count, narrate } from '../lab/narrative.ts';
import type { Story } from '../lab/story.ts';
import { fillText, renderTable, type Style, type TableRow } from './table.ts';

/** Headline, conditions, table, text. */
export function renderStory(story: Story, style: Style): string {
  const { header } = story.trace;
  const heads = story.runs.map((run) => run.policy);
  const parts = [
    fillText(`${header.name}: ${header.title}`),
    fillText(conditions(story)),
    '',
    renderTable(heads, tableRows(story), style),
    '',
    ...narrate(story).map(({ heading, text }) => `${style.bold(`${heading}.`)}\n${fillText(text, '  ')}`),
    relationsText(story, style),
  ];
  parts[0] = style.bold(parts[0]);
  parts[1] = style.dim(parts[1]);
  return parts.join('\n');
}

/** What several stories say together; '' for one. */
export function renderContrast(stories: readonly Story[], style: Style): string {
  const text = contrast(stories);
  return text === '' ? '' : `${style.bold('Side by side.')}\n${fillText(text, '  ')}`;
}

/** The definition of each row. */
export function renderDefinitions(style: Style): string {
  const lines: string[] = [];
  for (const { title, measures } of MEASURES) {
    lines.push(style.bold(title));
    for (const { key, label, meaning } of measures) {
      lines.push(`  ${label.trim()} ${style.dim(`(${key})`)}`, fillText(meaning, '      '));
    }
  }
  return lines.join('\n');
}

/** Plain data: conditions, every number, every round, and whether the relations hold. */
export function storyToJson(story: Story): unknown {
  const { header } = story.trace;
  const { regionWritten: _regionWritten, writtenPageList: _writtenPageList, ...profile } = story.profile;
  return {
    trace: {
      name: header.name,
      title: header.title,
      memBytes: header.memBytes,
      vcpus: header.vcpus,
      epochs: header.epochs,
      epochInsns: header.epochInsns,
      insns: header.insns,
      records: header.records,
    },
    profile,
    roundEpochs: story.roundEpochs,
    seed: story.seed,
    runs: story.runs.map(({ policy, loses, result }) => ({
      policy,
      expectedToLose: loses,
      measures: measure(result),
      counters: result.counters,
      migration: result.migration,
      brokenInvariants: result.brokenInvariants,
    })),
    relations: story.relations,
  };
}

function tableRows(story: Story): TableRow[] {
  return MEASURES.flatMap(({ title, measures }) => [
    { label: title, cells: [] },
    ...measures.map((row) => ({ label: `  ${row.label}`, cells: cellsOf(row, story) })),
  ]);
}

function cellsOf(row: Measure, story: Story): TableRow['cells'] {
  return story.runs.map(({ result }) => {
    const value = row.of(result);
    const text = count(value);
    if (row.alarming !== true) return { text };
    return { text, look: value === 0 ? 'good' : 'bad' };
  });
}

function relationsText({ relations }: Story, style: Style): string {
  const broken = relations.filter((relation) => !relation.holds);
  if (broken.length > 0) {
    return broken
      .map(({ text }) => style.bad(fillText(`NOT AS IT MUST BE: it does not hold that ${text}.`)))
      .join('\n');
  }
  const held = relations.map(({ text }) => text).join('; ');
  return `${style.bold('Checked.')}\n${fillText(`${held.charAt(0).toUpperCase()}${held.slice(1)}.`, '  ')}`;
}
