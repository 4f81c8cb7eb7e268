import { describe, expect, it } from 'vitest';
import { opsOf, parseMachine, settingsOf } from './machine.ts';
import { guessMachine } from './machine-guess.ts';
import { ScenarioError } from './scenario.ts';
import { strip } from './recording.ts';
import { givenPack } from './testing/given.ts';

const SCENARIO = `# two vCPUs
modes A C
vcpus 2
manual 3          # initially set
mmupages 64

slot 1 0x1000000 4M 2m
slot 2 0x2000000 1M 4k nopop
map 0x1000000 0x1000000 4M 2m WUAD
code 0x1000000
poke 0x2003000 1
run
nop
# done
r 0x1000000   user # at CPL 3
`;

describe('a scenario', () => {
  it('falls into settings and ops, without comments', () => {
    expect(settingsOf(SCENARIO)).toContain('manual 3');
    expect(settingsOf(SCENARIO)).toHaveLength(9);
    expect(opsOf(SCENARIO)).toEqual(['nop', 'r 0x1000000   user']);
  });

  it('tells what the head of a recording does not', () => {
    expect(parseMachine(settingsOf(SCENARIO))).toEqual({
      vcpus: 2,
      manual: 3,
      mmuPages: 64,
      ring: 0,
      nested: false,
      unpopulated: [2],
      writes: [0x2003000n],
    });
  });

  it('that sets nothing has one vCPU, the plain dirty log and the limit of KVM', () => {
    expect(parseMachine([])).toEqual({
      vcpus: 1,
      manual: 0,
      mmuPages: 0,
      ring: 0,
      nested: false,
      unpopulated: [],
      writes: [],
    });
  });

  it('without a run is refused', () => {
    expect(() => settingsOf('vcpus 2\n')).toThrow(new ScenarioError("no line 'run'"));
    expect(() => opsOf('vcpus 2\n')).toThrow(ScenarioError);
    expect(() => parseMachine(['vcpus'])).toThrow(new ScenarioError("'vcpus': a number is missing"));
    expect(() => parseMachine(['vcpus 0'])).toThrow(new ScenarioError('no vCPU'));
  });
});

describe('a machine that is guessed', () => {
  it('rests on the script alone: vCPUs and manual protection by the ops, unpopulated slots by the memory', () => {
    const packed = givenPack('6.1-core').find(({ name }) => name === 'notifier.A');
    const recording = packed?.load();
    if (packed === undefined || recording === undefined) throw new Error('notifier.A is missing');
    const { unpopulated, vcpus } = parseMachine(packed.settings);
    const guess = guessMachine(strip(recording));
    expect(guess.vcpus).toBe(vcpus);
    expect(guess.unpopulated).toEqual(expect.arrayContaining([...unpopulated]));
    expect(guessMachine({ ...strip(recording), results: [{ n: 0, op: 'vcpu 1' }] }).vcpus).toBe(2);
    expect(guessMachine({ ...strip(recording), results: [{ n: 0, op: 'clearlog 1 0 64' }] }).manual).toBe(1);
  });
});
