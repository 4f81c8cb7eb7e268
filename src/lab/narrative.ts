/**
 * The text under the table: what lazy dropping bought this guest, what it did not, and what the bug lost. Each sentence is
 * made of the numbers that were measured, and is left out when they don't bear it.
 */
import { MEASURES } from './measures.ts';
import type { ReplayResult } from './replay.ts';
import { runBy, type Story, type StoryRun } from './story.ts';

export interface Paragraph {
  readonly heading: string;
  readonly text: string;
}

/** About one recording. */
export function narrate(story: Story): Paragraph[] {
  const zap = runBy(story, 'zap');
  const lazy = runBy(story, 'lazy');
  const bug = runBy(story, 'lazy+bug');
  const split = runBy(story, 'split');
  const eager = runBy(story, 'eager');
  const paragraphs: Paragraph[] = [];
  const add = (heading: string, text: string): void => void paragraphs.push({ heading, text });
  if (zap !== undefined && lazy !== undefined) {
    add('What lazy dropping buys', boughtText(story, zap, lazy));
    add('What it does not', notBoughtText(zap, lazy));
  }
  if (bug !== undefined) add('What the bug lost', bugText(bug.result));
  if (split !== undefined) add('What splitting at the fault changes', splitText(split, lazy));
  if (eager !== undefined) add('The price of eager', eagerText(eager.result, lazy));
  const alike = alikeText(story);
  if (alike !== '') add('What is the same', alike);
  if (story.runs.some(({ kernel }) => kernel)) add('What the columns stand for', kernelsText(story));
  return paragraphs;
}

/** About several recordings: why the effect differs. Empty if there is nothing to set side by side. */
export function contrast(stories: readonly Story[]): string {
  const parts: string[] = [];
  for (const story of stories) {
    const zap = runBy(story, 'zap')?.result;
    const lazy = runBy(story, 'lazy')?.result;
    if (zap === undefined || lazy === undefined || zap.readFaults === 0) continue;
    const { touchedRegions, writtenRegions } = story.profile;
    parts.push(
      `${story.trace.header.name} writes to ${writtenRegions} of the ${touchedRegions} regions that it touches, and lazy ` +
        `dropping spares ${percent(zap.readFaults - lazy.readFaults, zap.readFaults)} of the reads that fault`,
    );
  }
  if (parts.length < 2) return '';
  return `What decides is how many 2 MiB regions stay free of writes: ${parts.join('; ')}.`;
}

/** One sentence over all stories; what they are about if they bear no more. */
export function headline(stories: readonly Story[]): string {
  const spared: string[] = [];
  const lost: string[] = [];
  for (const story of stories) {
    const { name } = story.trace.header;
    const zap = runBy(story, 'zap')?.result.readFaults ?? 0;
    const lazy = runBy(story, 'lazy')?.result.readFaults;
    if (lazy !== undefined && lazy < zap) spared.push(`${percent(zap - lazy, zap)} of the reads that fault in ${name}`);
    const lostPages = runBy(story, 'lazy+bug')?.result.migration.lostPages ?? 0;
    if (lostPages > 0) lost.push(count(lostPages));
  }
  const what = 'Write-protecting large sptes and dropping them lazily';
  if (spared.length === 0) return `${what}: what it buys a guest that is migrated`;
  const bug = lost.length === 0 ? '' : `; its first version lost ${lost.join(' and ')} pages`;
  return `${what} spares ${spared.join(' and ')}${bug}`;
}

/** Under what conditions a story was measured. */
export function conditions({ trace, profile, roundEpochs }: Story): string {
  const { header } = trace;
  const vcpus = header.vcpus === 1 ? '1 vCPU' : `${header.vcpus} vCPUs`;
  return (
    `${count(header.memBytes / 2 ** 20)} MiB guest, ${vcpus}, ${count(header.epochs)} epochs of ` +
    `${count(header.epochInsns)} instructions, ${count(header.records)} recorded touches. All memory is mapped by ` +
    `${count(profile.regions)} writable 2 MiB sptes and copied once when the log starts; then a round every ` +
    `${count(roundEpochs)} epochs, and a last one at the end.`
  );
}

function boughtText(
  { profile }: Story,
  { policy: old, result: zap }: StoryRun,
  { policy, result: lazy }: StoryRun,
): string {
  const spared = zap.readFaults - lazy.readFaults;
  if (zap.readFaults === 0) return `Nothing here: no read faults under ${old} either.`;
  const { touchedRegions, writtenRegions } = profile;
  const unwritten = touchedRegions - writtenRegions;
  const sentences = [
    spared <= 0
      ? `Nothing here: ${count(lazy.readFaults)} reads fault, and ${count(zap.readFaults)} under ${old}.`
      : `It spares ${count(spared)} of the ${count(zap.readFaults)} reads that fault under ${old}, ` +
        `${percent(spared, zap.readFaults)}${timesFewer(zap.readFaults, lazy.readFaults)}.`,
  ];
  if (unwritten > 0) {
    sentences.push(
      `${count(unwritten)} of the ${count(touchedRegions)} regions touched are never written to: ${old} takes ` +
        `${faults(zap.readFaultsInUnwrittenRegions)} there, ${policy} ${count(lazy.readFaultsInUnwrittenRegions)}, since ` +
        'the read-only large spte goes on serving reads.',
    );
  }
  const sent = zap.migration.sentPages - lazy.migration.sentPages;
  const tables = zap.tablesAtEnd - lazy.tablesAtEnd;
  if (sent > 0) sentences.push(`${count(sent)} fewer pages are sent (${percent(sent, zap.migration.sentPages)}).`);
  if (tables > 0) sentences.push(`${count(tables)} fewer page tables are needed.`);
  return sentences.join(' ');
}

function notBoughtText({ policy: old, result: zap }: StoryRun, { result: lazy }: StoryRun): string {
  const dropped = lazy.largeBefore - lazy.largeKept;
  const { unchangedPages, sentPages } = lazy.migration;
  const sentences: string[] = [];
  if (dropped > 0) {
    const requests = flushesByFaults(lazy) - flushesByFaults(zap);
    sentences.push(
      `The first write to a region ends it: the large spte is dropped (${count(dropped)} times here` +
        `${requests > 0 ? `, each with a flush of all TLBs, ${count(requests)} more than under ${old}` : ''}), and from then on ` +
        `the region's other pages fault on their first read as well: ${faults(lazy.readFaults)}.`,
    );
  }
  if (unchangedPages > 0) {
    sentences.push(
      'A page that a read faults in while the log is on is mapped writable and marked dirty, although nothing was written: ' +
        `${count(unchangedPages)} of the ${count(sentPages)} pages sent were at the destination already ` +
        `(${old}: ${count(zap.migration.unchangedPages)} of ${count(zap.migration.sentPages)}).`,
    );
  }
  sentences.push(`Writes fault ${count(lazy.writeFaults)} times, under ${old} ${count(zap.writeFaults)} times.`);
  return sentences.join(' ');
}

function bugText(bug: ReplayResult): string {
  const { lostPages, writtenPages, sentPages } = bug.migration;
  if (lostPages === 0) return 'Nothing here: source and destination are the same.';
  return (
    `As first merged, the lockless fast path made a read-only large spte writable again and put one page into the log, the ` +
    `first of the region: ${count(bug.writeFaults)} writes faulted, ${count(sentPages)} pages were sent, and ` +
    `${count(lostPages)} of the ${count(writtenPages)} pages that the guest wrote (${percent(lostPages, writtenPages)}) ` +
    'differ at the destination. Its small numbers are those of a log that sees nothing.'
  );
}

function splitText({ policy, result: split }: StoryRun, lazy: StoryRun | undefined): string {
  const dropped = split.largeBefore - split.largeKept;
  const times = `${count(dropped)} time${dropped === 1 ? '' : 's'}`;
  const flushes = flushesByFaults(split);
  const sentences = [
    `The first write to a region splits the read-only large spte into 512 read-only small ones and makes one of them ` +
      `writable: ${times} here, ${flushes === 0 ? 'and no fault asks for a flush' : `with ${count(flushes)} flushes`}. ` +
      `So the region's other pages stay readable, ${split.readFaults === 0 ? 'no read faults' : faults(split.readFaults)}, ` +
      `and clean: ${count(split.migration.unchangedPages)} pages are sent for nothing.`,
  ];
  if (lazy === undefined) return sentences.join(' ');
  const { policy: old, result } = lazy;
  sentences.push(
    `Under ${old}, which drops it, ${faults(result.readFaults)} and ${count(flushesByFaults(result))} flushes by faults, ` +
      `and ${count(result.migration.unchangedPages)} pages for nothing.`,
  );
  const more = split.writeFaults - result.writeFaults;
  if (more > 0) {
    sentences.push(
      `In return ${count(more)} more writes fault than there, where a page that a read has faulted in is writable ` +
        `already; ${count(split.counters.pf_fast)} of the faults under ${policy} are fixed without the lock.`,
    );
  }
  return sentences.join(' ');
}

function eagerText(eager: ReplayResult, lazyRun: StoryRun | undefined): string {
  const lazy = lazyRun?.result;
  const tables = eager.tablesAtEnd - eager.tablesBefore;
  const sentences = [
    `Everything is split before the guest runs on: ${count(eager.sptesChangedAtStart)} sptes changed and ` +
      `${count(tables)} more page tables at the start of the log` +
      (lazy === undefined
        ? ''
        : `, where ${lazyRun?.policy} changes ${count(lazy.sptesChangedAtStart)} sptes and adds none`) +
      `; ${count(eager.flushRequestsAtStart)} flush${eager.flushRequestsAtStart === 1 ? ' is' : 'es are'} asked for in ` +
      `doing so.`,
    eager.readFaults === 0 ? 'In return no read faults.' : `${faults(eager.readFaults)} are taken by reads.`,
  ];
  const more = lazy === undefined ? 0 : eager.writeFaults - lazy.writeFaults;
  if (more > 0) {
    sentences.push(
      `${count(more)} more writes fault than under ${lazyRun?.policy}, where a page that a read has faulted in is writable already.`,
    );
  }
  return sentences.join(' ');
}

/** Which columns of one idea have the same numbers, and in which rows the others differ. */
function alikeText({ runs }: Story): string {
  const sentences: string[] = [];
  for (const first of runs) {
    const later = runs.filter((run) => run.idea === first.idea);
    if (later[0] !== first) continue;
    const same: string[] = [];
    for (const run of later.slice(1)) {
      const rows = MEASURES.flatMap(({ measures }) => measures)
        .filter(({ of }) => of(run.result) !== of(first.result))
        .map(({ label }) => `'${label.trim()}'`);
      if (rows.length === 0) same.push(run.policy);
      else sentences.push(`${run.policy} differs from ${first.policy} in ${rows.join(', ')}.`);
    }
    if (same.length > 0)
      sentences.unshift(`${[first.policy, ...same].join(' and ')} have the same numbers in every row.`);
  }
  return sentences.join(' ');
}

/** What a kernel's column is, and what it isn't. */
function kernelsText({ runs }: Story): string {
  const kernels = runs.filter(({ kernel }) => kernel);
  const old = kernels.filter(({ policy }) => policy.startsWith('linux-3.')).map(({ policy }) => policy);
  const tdp = kernels.filter(({ policy }) => policy.endsWith('-tdp')).map(({ policy }) => policy);
  const sentences = ['What becomes of large sptes.', ...kernels.map(({ policy, about }) => `${policy}: ${about}.`)];
  if (old.length > 0) {
    sentences.push(
      `${old.join(', ')} stand${old.length === 1 ? 's' : ''} for the rmap-based engine of Linux 6.1 with what write protection and the fast page fault did then; ` +
        'what else has changed since is not taken back.',
    );
  }
  if (tdp.length > 0) {
    sentences.push(
      `${tdp.join(', ')}: measured with eager_page_split=N; by default these kernels split when the log starts, and no large spte ` +
        'is left for a write to meet.',
    );
  }
  return sentences.join(' ');
}

/** Flushes that neither the start of the log nor a round asked for. */
function flushesByFaults(result: ReplayResult): number {
  const rounds = result.migration.rounds.filter((round) => round.dirtyPages > 0).length;
  return result.counters.remote_tlb_flush_requests - result.flushRequestsAtStart - rounds;
}

/** Digits in groups of three. */
export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ',');
}

function faults(value: number): string {
  return `${count(value)} read fault${value === 1 ? '' : 's'}`;
}

/** One decimal; 0.0% and 100.0% mean exactly none and exactly all. */
function percent(part: number, whole: number): string {
  if (part === 0 || whole === 0) return '0.0%';
  if (part === whole) return '100.0%';
  return `${Math.min(99.9, Math.max(0.1, (100 * part) / whole)).toFixed(1)}%`;
}

function timesFewer(from: number, to: number): string {
  if (to === 0 || from / to < 1.5) return '';
  return `: ${(from / to).toFixed(1)} times fewer`;
}
