import { describe, expect, it } from 'vitest';
import { KIND_FETCH, KIND_READ, KIND_WRITE, type PageTrace } from '../formats/pntrace.ts';
import { TraceBuilder } from '../formats/pntrace-builder.ts';
import { measure } from './measures.ts';
import { type ReplayOptions, type ReplayResult, replay } from './replay.ts';
import { PlainMachine, type PlainPolicy } from './testing/plain-machine.ts';

const R = KIND_READ;
const W = KIND_WRITE;
const X = KIND_FETCH;
const REGIONS = 4;

/** One vCPU; each epoch a list of [kind, region, page in the region]. */
function traceOf(...epochs: [kind: number, region: number, page: number][][]): PageTrace {
  const memBytes = REGIONS << 21;
  const builder = new TraceBuilder({ name: 'hand', title: 'by hand', epochInsns: 1, memBytes, vcpus: 1 });
  for (const touches of epochs) {
    for (const [kind, region, page] of touches) builder.touch(region * 512 + page, kind);
    builder.endList(1, 0, 0);
  }
  return builder.finish();
}

function run(policy: PlainPolicy, trace: PageTrace, options: Partial<ReplayOptions> = {}): ReplayResult {
  const machine = new PlainMachine(policy, trace.header.memBytes / 4096);
  return replay(trace, machine, { roundEpochs: 1, seed: 1, ...options });
}

/** Reads in a region that nothing writes to, then one write and three reads in another. */
const TRACE = traceOf(
  [
    [R, 0, 0],
    [X, 0, 1],
    [R, 1, 9],
  ],
  [
    [W, 1, 5],
    [R, 1, 6],
    [R, 1, 7],
    [R, 1, 9],
  ],
  [
    [R, 0, 0],
    [R, 1, 6],
    [W, 1, 6],
  ],
);

describe('a replay', () => {
  // biome-ignore format: a table
  it.each<[PlainPolicy, Record<string, number>]>([
    ['zap',      { readFaults: 5, readFaultsInUnwrittenRegions: 2, writeFaults: 2, largeKept: 0, largeDropped: 4,
                   sentPages: 7, unchangedPages: 5, lostPages: 0, sptesChangedAtStart: 4 }],
    ['lazy',     { readFaults: 3, readFaultsInUnwrittenRegions: 0, writeFaults: 2, largeKept: 3, largeDropped: 1,
                   sentPages: 5, unchangedPages: 3, lostPages: 0, sptesChangedAtStart: 4, flushRequestsByFaults: 1 }],
    ['lazy+bug', { readFaults: 0, writeFaults: 1, largeKept: 4, sentPages: 1, unchangedPages: 1, lostPages: 2 }],
    ['eager',    { readFaults: 0, writeFaults: 2, largeKept: 0, sentPages: 2, unchangedPages: 0, lostPages: 0,
                   sptesChangedAtStart: 4 + 4 * 512 }],
  ])('counts what happens under %s', (policy, expected) => {
    const result = run(policy, TRACE);
    expect(measure(result)).toMatchObject({ largeBefore: 4, rounds: 3, ...expected });
    expect(measure(result)['largeRecovered']).toBe(4 - measure(result)['largeKept']);
  });

  it('has a round after each full span of epochs, and one last round at the end', () => {
    const rounds = (epochs: number, roundEpochs: number): number =>
      run('lazy', traceOf(...Array.from({ length: epochs }, () => [])), { roundEpochs }).migration.rounds.length;
    expect([rounds(0, 50), rounds(49, 50), rounds(50, 50), rounds(51, 50), rounds(100, 50), rounds(101, 50)]).toEqual([
      1, 1, 1, 2, 2, 3,
    ]);
  });

  it('tells how far it is', () => {
    const seen: number[] = [];
    run('zap', TRACE, { onProgress: (epoch) => seen.push(epoch) });
    expect(seen).toEqual([1, 2, 3]);
  });

  it('refuses a machine that is not mapped by large entries', () => {
    const machine = new PlainMachine('zap', REGIONS * 512);
    machine.log.start();
    expect(() => replay(TRACE, machine, { roundEpochs: 1, seed: 1 })).toThrow('0 of 4 regions are mapped');
  });

  it('interleaves the lists of several vCPUs as the seed says, losing no touch and keeping the order of each', () => {
    const vcpus = 3;
    const builder = new TraceBuilder({ name: 'smp', title: '', epochInsns: 1, memBytes: 1 << 21, vcpus });
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      for (let i = 0; i < 20 * vcpu; i++) builder.touch(vcpu * 100 + i, R);
      builder.endList(1, 0, 0);
    }
    const trace = builder.finish();
    const order = (seed: number): number[][] => {
      const seen: number[][] = [];
      const machine = new PlainMachine('lazy', 512);
      const touch = machine.touch.bind(machine);
      machine.touch = (vcpu, page, kind) => {
        if (kind === R) seen.push([vcpu, page]);
        return touch(vcpu, page, kind);
      };
      replay(trace, machine, { roundEpochs: 50, seed });
      return seen;
    };
    const first = order(1);
    expect(first).toEqual(order(1));
    expect(first).not.toEqual(order(2));
    expect(first).not.toEqual(first.toSorted((a, b) => a[0] - b[0]));
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      const own = first.filter(([of]) => of === vcpu).map(([, page]) => page);
      expect(own).toEqual(Array.from({ length: 20 * vcpu }, (_, i) => vcpu * 100 + i));
    }
  });
});
