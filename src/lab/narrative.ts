/**
 * The text under the table: what lazy dropping bought this guest, what it did not, and what the bug lost. Each sentence is
 * made of the numbers that were measured, and is left out when they don't bear it.
 */
import type { ReplayResult } from './replay.ts';
import { runOf, type Story } from './story.ts';

export interface Paragraph {
  readonly heading: string;
  readonly text: string;
}

/** About one recording. */
export function narrate(story: Story): Paragraph[] {
  const zap = runOf(story, 'zap');
  const lazy = runOf(story, 'lazy');
  const bug = runOf(story, 'lazy+bug');
  const eager = runOf(story, 'eager');
  const paragraphs: Paragraph[] = [];
  if (zap !== undefined && lazy !== undefined) {
    paragraphs.push({ heading: 'What lazy dropping buys', text: boughtText(story, zap, lazy) });
    paragraphs.push({ heading: 'What it does not', text: notBoughtText(zap, lazy) });
  }
  if (bug !== undefined) paragraphs.push({ heading: 'What the bug lost', text: bugText(bug) });
  if (eager !== undefined) paragraphs.push({ heading: 'The price of eager', text: eagerText(eager, lazy) });
  return paragraphs;
}

/** About several recordings: why the effect differs. Empty if there is nothing to set side by side. */
export function contrast(stories: readonly Story[]): string {
  const parts: string[] = [];
  for (const story of stories) {
    const zap = runOf(story, 'zap');
    const lazy = runOf(story, 'lazy');
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
    const zap = runOf(story, 'zap')?.readFaults ?? 0;
    const lazy = runOf(story, 'lazy')?.readFaults;
    if (lazy !== undefined && lazy < zap) spared.push(`${percent(zap - lazy, zap)} of the reads that fault in ${name}`);
    const lostPages = runOf(story, 'lazy+bug')?.migration.lostPages ?? 0;
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

function boughtText({ profile }: Story, zap: ReplayResult, lazy: ReplayResult): string {
  const spared = zap.readFaults - lazy.readFaults;
  if (zap.readFaults === 0) return 'Nothing here: no read faults under zap either.';
  const { touchedRegions, writtenRegions } = profile;
  const unwritten = touchedRegions - writtenRegions;
  const sentences = [
    spared <= 0
      ? `Nothing here: ${count(lazy.readFaults)} reads fault, and ${count(zap.readFaults)} under zap.`
      : `It spares ${count(spared)} of the ${count(zap.readFaults)} reads that fault under zap, ` +
        `${percent(spared, zap.readFaults)}${timesFewer(zap.readFaults, lazy.readFaults)}.`,
  ];
  if (unwritten > 0) {
    sentences.push(
      `${count(unwritten)} of the ${count(touchedRegions)} regions touched are never written to: zap takes ` +
        `${faults(zap.readFaultsInUnwrittenRegions)} there, lazy ${count(lazy.readFaultsInUnwrittenRegions)}, since the ` +
        'read-only large spte goes on serving reads.',
    );
  }
  const sent = zap.migration.sentPages - lazy.migration.sentPages;
  const tables = zap.tablesAtEnd - lazy.tablesAtEnd;
  if (sent > 0) sentences.push(`${count(sent)} fewer pages are sent (${percent(sent, zap.migration.sentPages)}).`);
  if (tables > 0) sentences.push(`${count(tables)} fewer page tables are needed.`);
  return sentences.join(' ');
}

function notBoughtText(zap: ReplayResult, lazy: ReplayResult): string {
  const dropped = lazy.largeBefore - lazy.largeKept;
  const { unchangedPages, sentPages } = lazy.migration;
  const sentences: string[] = [];
  if (dropped > 0) {
    const requests =
      lazy.counters.remote_tlb_flush_requests -
      zap.counters.remote_tlb_flush_requests -
      (roundsWithPages(lazy) - roundsWithPages(zap));
    sentences.push(
      `The first write to a region ends it: the large spte is dropped (${count(dropped)} times here` +
        `${requests > 0 ? `, each with a flush of all TLBs, ${count(requests)} more than under zap` : ''}), and from then on ` +
        `the region's other pages fault on their first read as well: ${faults(lazy.readFaults)}.`,
    );
  }
  if (unchangedPages > 0) {
    sentences.push(
      'A page that a read faults in while the log is on is mapped writable and marked dirty, although nothing was written: ' +
        `${count(unchangedPages)} of the ${count(sentPages)} pages sent were at the destination already ` +
        `(zap: ${count(zap.migration.unchangedPages)} of ${count(zap.migration.sentPages)}).`,
    );
  }
  sentences.push(`Writes fault ${count(lazy.writeFaults)} times, under zap ${count(zap.writeFaults)} times.`);
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

function eagerText(eager: ReplayResult, lazy: ReplayResult | undefined): string {
  const tables = eager.tablesAtEnd - eager.tablesBefore;
  const sentences = [
    `Everything is split before the guest runs on: ${count(eager.sptesChangedAtStart)} sptes changed and ` +
      `${count(tables)} more page tables at the start of the log` +
      (lazy === undefined ? '' : `, where lazy changes ${count(lazy.sptesChangedAtStart)} sptes and adds none`) +
      `; ${count(eager.flushRequestsAtStart)} flushes are asked for in doing so.`,
    eager.readFaults === 0 ? 'In return no read faults.' : `${faults(eager.readFaults)} are taken by reads.`,
  ];
  const more = lazy === undefined ? 0 : eager.writeFaults - lazy.writeFaults;
  if (more > 0) {
    sentences.push(
      `${count(more)} more writes fault than under lazy, where a page that a read has faulted in is writable already.`,
    );
  }
  return sentences.join(' ');
}

function roundsWithPages(result: ReplayResult): number {
  return result.migration.rounds.filter((round) => round.dirtyPages > 0).length;
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
