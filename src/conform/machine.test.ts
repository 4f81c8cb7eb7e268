import { describe, expect, it } from 'vitest';
import { opsOf, parseMachine, settingsOf } from './machine.ts';
import { guessMachine } from './machine-guess.ts';
import { ScenarioError } from './scenario.ts';
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
      unpopulated: [2],
      writes: [0x2003000n],
    });
  });

  it('that sets nothing has one vCPU, the plain dirty log and the limit of KVM', () => {
    expect(parseMachine([])).toEqual({ vcpus: 1, manual: 0, mmuPages: 0, unpopulated: [], writes: [] });
  });

  it('without a run is refused', () => {
    expect(() => settingsOf('vcpus 2\n')).toThrow(new ScenarioError("no line 'run'"));
    expect(() => opsOf('vcpus 2\n')).toThrow(ScenarioError);
    expect(() => parseMachine(['vcpus'])).toThrow(new ScenarioError("'vcpus': a number is missing"));
  });
});

describe('a machine that is guessed', () => {
  it('is the machine of the scenario for all core scenarios, but for a limit on pages that was never reached', () => {
    for (const packed of givenPack('6.1-core')) {
      const scenario = parseMachine(packed.settings);
      const guess = guessMachine(packed.load());
      expect({ name: packed.name, ...guess, mmuPages: 0 }).toEqual({ name: packed.name, ...scenario, mmuPages: 0 });
      expect([0, scenario.mmuPages]).toContain(guess.mmuPages);
    }
  });

  it('has the limit on shadow pages that few-pages runs into', () => {
    const packed = givenPack('6.1-core').find(({ name }) => name === 'few-pages.A');
    expect(packed && guessMachine(packed.load()).mmuPages).toBe(64);
  });
});
