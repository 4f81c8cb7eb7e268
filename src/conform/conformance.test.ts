import { describe, expect, it } from 'vitest';
import { compareRecordings, formatDifference } from './compare.ts';
import { parseMachine } from './machine.ts';
import { parseRecording, type Recording, strip } from './recording.ts';
import { runScript } from './run.ts';
import { givenPack } from './testing/given.ts';
import { writeRecording } from './write.ts';

const CORE = givenPack('6.1-core');
const ERRORS = givenPack('6.1-errors');
const HOST = givenPack('6.1-host');
const RANDOM = givenPack('6.1-random');

/** The first differences between a recording and our run of its script. */
function differences(want: Recording, got: Recording): string[] {
  return compareRecordings(want, got, { limit: 2 }).differences.map((difference) => formatDifference(difference));
}

describe("Linux 6.1's KVM", () => {
  it.each(CORE.map((packed) => [packed.name, packed] as const))('is what we do in %s', (_name, packed) => {
    const recording = packed.load();
    expect(differences(recording, runScript(strip(recording), parseMachine(packed.settings)))).toEqual([]);
  });

  it.each(ERRORS.map((packed) => [packed.name, packed] as const))('is what we do in %s', (_name, packed) => {
    const recording = packed.load();
    expect(differences(recording, runScript(strip(recording), parseMachine(packed.settings)))).toEqual([]);
  });

  it.each(HOST.map((packed) => [packed.name, packed] as const))('is what we do in %s', (_name, packed) => {
    const recording = packed.load();
    expect(differences(recording, runScript(strip(recording), parseMachine(packed.settings)))).toEqual([]);
  });

  it.each(RANDOM.map((packed) => [packed.name, packed] as const))('is what we do in %s', (_name, packed) => {
    const recording = packed.load();
    expect(differences(recording, runScript(strip(recording), parseMachine(packed.settings)))).toEqual([]);
  });
});

describe('a replay', () => {
  it('uses nothing of a recording but its start and the texts of its ops', () => {
    const packed = CORE.find(({ name }) => name === 'lazy-drop-g2m.A')!;
    const machine = parseMachine(packed.settings);
    const document = JSON.parse(writeRecording(packed.load()));
    for (const result of document.results)
      for (const answer of ['events', 'stats', 'state', 'bitmap', 'res', 'args', 'mmio', 'slot']) delete result[answer];
    const stripped = parseRecording(JSON.stringify(document), 'stripped.A.json');
    expect(writeRecording(runScript(strip(stripped), machine))).toBe(
      writeRecording(runScript(strip(packed.load()), machine)),
    );
  });

  it('differs if the engine does: a policy that zaps is not Linux 6.1', () => {
    const packed = CORE.find(({ name }) => name === 'lazy-drop-g2m.A')!;
    const recording = packed.load();
    const zapping = { onProtect: 'zap', fastFaultLarge: 'guarded', name: 'zap' } as const;
    const got = runScript(strip(recording), parseMachine(packed.settings), { policy: zapping });
    expect(differences(recording, got)).not.toEqual([]);
  });

  it.each([
    'lazy-drop-g2m.A',
    'lazy-drop-g2m.B',
    'notifier.A',
    'random-0013.C',
    'random-0020.A',
    'random-0020.B',
    'random-0035.C',
    'eager-split-g2m.B',
    'notifier.B',
  ])('keeps every invariant after each op of %s', (name) => {
    const packed = [...CORE, ...RANDOM].find((candidate) => candidate.name === name)!;
    const broken: string[] = [];
    runScript(strip(packed.load()), parseMachine(packed.settings), {
      afterOp: ({ vmm }, { n }) => {
        broken.push(...vmm.vm.verify().map((line) => `op ${n}: ${line}`));
      },
    });
    expect(broken).toEqual([]);
  });
});
