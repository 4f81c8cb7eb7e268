/** The rows of the table: what each number is called, exactly what it counts, and how to get it from a run. */
import type { ReplayResult } from './replay.ts';

export interface Measure {
  /** Name in JSON. */
  readonly key: string;
  readonly label: string;
  /** The definition, in whole sentences. */
  readonly meaning: string;
  readonly of: (result: ReplayResult) => number;
  /** The best value is 0, and any other is bad news. */
  readonly alarming?: boolean;
}

export interface MeasureGroup {
  readonly title: string;
  readonly measures: readonly Measure[];
}

export const MEASURES: readonly MeasureGroup[] = [
  {
    title: 'faults while logging',
    measures: [
      {
        key: 'readFaults',
        label: 'reads that fault',
        meaning:
          'Recorded reads and fetches, from the moment the log starts to the last round, for which the guest had to ' +
          'leave to the hypervisor at least once. Under lazy a lower bound: a page read before and again after the first ' +
          'write to its region faults on the later read, which no recording lists when both fall into one epoch.',
        of: (run) => run.readFaults,
      },
      {
        key: 'readFaultsInUnwrittenRegions',
        label: '  in regions never written',
        meaning: 'Those of them in a 2 MiB region that the recording never writes to.',
        of: (run) => run.readFaultsInUnwrittenRegions,
      },
      {
        key: 'writeFaults',
        label: 'writes that fault',
        meaning: 'The same for recorded writes.',
        of: (run) => run.writeFaults,
      },
      {
        key: 'fastFixed',
        label: 'faults fixed without the lock',
        meaning:
          "KVM's pf_fast while logging: faults that the fast path ended by setting the write bit again, or found to be " +
          'over already.',
        of: (run) => run.counters.pf_fast,
      },
    ],
  },
  {
    title: 'TLB',
    measures: [
      {
        key: 'flushRequests',
        label: 'flushes asked for',
        meaning:
          "KVM's remote_tlb_flush_requests, start of the log included. All vCPUs run in one thread, so none has to be " +
          'interrupted and remote_tlb_flush itself stays 0.',
        of: (run) => run.counters.remote_tlb_flush_requests,
      },
      {
        key: 'flushRequestsByFaults',
        label: '  by faults',
        meaning:
          'Those of them that neither the start of the log nor a round asked for (a round asks once if any page is dirty).',
        of: (run) =>
          run.counters.remote_tlb_flush_requests -
          run.flushRequestsAtStart -
          run.migration.rounds.filter((round) => round.dirtyPages > 0).length,
      },
      {
        key: 'vcpuFlushes',
        label: 'flushes made by vCPUs',
        meaning: "KVM's tlb_flush, all vCPUs together. Requests that come before the next entry are served at once.",
        of: (run) => run.counters.tlb_flush,
      },
    ],
  },
  {
    title: 'large sptes (2 MiB)',
    measures: [
      {
        key: 'largeBefore',
        label: 'before the log starts',
        meaning: "KVM's pages_2m after one write to each region of memory.",
        of: (run) => run.largeBefore,
      },
      {
        key: 'largeKept',
        label: 'kept until the end',
        meaning:
          "KVM's pages_2m after the last round, the log still on. Read-only, but for those that a bug made writable.",
        of: (run) => run.largeKept,
      },
      {
        key: 'largeDropped',
        label: 'dropped or split',
        meaning: 'The difference.',
        of: (run) => run.largeBefore - run.largeKept,
      },
      {
        key: 'largeRecovered',
        label: 'recovered afterwards',
        meaning:
          'By how many pages_2m grows when the log is stopped, as after a migration that is called off, and each ' +
          'region is written to once.',
        of: (run) => run.largeRecovered,
      },
    ],
  },
  {
    title: 'tables',
    measures: [
      {
        key: 'tablesBefore',
        label: 'page tables before the log',
        meaning: "Page tables in use (KVM's n_used_mmu_pages) before the log starts, 4 KiB each.",
        of: (run) => run.tablesBefore,
      },
      {
        key: 'tablesAtEnd',
        label: 'page tables at the end',
        meaning: 'The same after the last round.',
        of: (run) => run.tablesAtEnd,
      },
      {
        key: 'sptesChangedAtStart',
        label: 'sptes changed at log start',
        meaning:
          'Entries in all page tables whose value differs between just before and just after the start of the log.',
        of: (run) => run.sptesChangedAtStart,
      },
    ],
  },
  {
    title: 'migration',
    measures: [
      {
        key: 'rounds',
        label: 'rounds',
        meaning: 'Times that the dirty log was read and what it named was sent; the last one with the guest stopped.',
        of: (run) => run.migration.rounds.length,
      },
      {
        key: 'dirtyMedian',
        label: 'dirty pages a round, median',
        meaning: 'Pages that the dirty log named in a round: the median over all rounds, the upper one of two.',
        of: (run) => sortedDirty(run)[run.migration.rounds.length >> 1],
      },
      {
        key: 'dirtyMost',
        label: '  most',
        meaning: 'The largest of them.',
        of: (run) => sortedDirty(run)[run.migration.rounds.length - 1],
      },
      {
        key: 'sentPages',
        label: 'pages sent',
        meaning: 'By all rounds together. The first copy of all memory, the same under every policy, comes on top.',
        of: (run) => run.migration.sentPages,
      },
      {
        key: 'unchangedPages',
        label: '  for nothing',
        meaning: 'Those of them that the destination already had in the same version: dirty by a read, or by a bug.',
        of: (run) => run.migration.unchangedPages,
      },
      {
        key: 'lostPages',
        label: 'pages lost',
        meaning:
          'Pages whose contents differ between source and destination after the last round. Each recorded write gives its ' +
          'page a new version; both sides are compared page by page.',
        of: (run) => run.migration.lostPages,
        alarming: true,
      },
    ],
  },
];

/** Every measure of a run, by its key. */
export function measure(result: ReplayResult): Record<string, number> {
  return Object.fromEntries(MEASURES.flatMap(({ measures }) => measures.map(({ key, of }) => [key, of(result)])));
}

function sortedDirty(run: ReplayResult): number[] {
  return run.migration.rounds.map((round) => round.dirtyPages).sort((a, b) => a - b);
}
