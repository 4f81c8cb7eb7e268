/** The changed copy of the engine, in which a thread can stop, does what the engine does. */
import { describe, expect, it } from 'vitest';
import { interleaved, transform } from '../../scripts/interleave.mjs';
import { parseMachine } from '../conform/machine.ts';
import { strip } from '../conform/recording.ts';
import { type GivenSet, givenPack } from '../conform/testing/given.ts';
import { runScript } from '../conform/run.ts';

/** In each mode of both kernels, so many of the shortest. */
const EACH = 1;

describe('the changed engine, its threads run one by one,', () => {
  it.each(['6.1-core', '6.1-random', '6.1-host', '6.12-core'] satisfies GivenSet[])(
    'replays %s as the engine does',
    async (set) => {
      const changed = (await interleaved('src/check/testing/replay.ts', { alone: true })) as {
        runScript: typeof runScript;
        $stopping: string[];
      };
      expect(changed.$stopping).toContain('directMap');
      const pack = givenPack(set);
      const some = ['A', 'B', 'C'].flatMap((mode) =>
        pack.filter(({ name }) => name.endsWith(`.${mode}`)).slice(0, EACH),
      );
      expect(some.length).toBeGreaterThan(0);
      for (const packed of some) {
        const script = strip(packed.load());
        const machine = parseMachine(packed.settings);
        expect(changed.runScript(script, machine), packed.name).toEqual(runScript(script, machine));
      }
    },
    600_000,
  );
});

const MARK = 'function race(_point) {}\n';

describe('the change', () => {
  it('makes generators of what can come to a mark, through callbacks too, and of nothing else', () => {
    const text = transform(
      `${MARK}function a(f) { return f(1); }\nfunction b() { return a((x) => c(x)); }\nfunction c(x) { race(x); return x; }\nfunction d() { return 1; }\n`,
    );
    for (const name of ['a', 'b', 'c']) expect(text).toContain(`function* ${name}(`);
    expect(text).toContain('function d(');
  });

  it.each([
    ['a getter', 'class A { get x() { race(1); return 2; } }', /takes no generator/],
    ['a constructor', 'class A { constructor() { race(1); } }', /takes no generator/],
    ['a callback of something built in', 'function a(list) { list.map((x) => race(x)); }', /takes no generator/],
    [
      'a value that only the stack of the interpreter holds',
      'function a(o) { return o.x + b(); }\nfunction b() { race(1); return 1; }\nfunction c(o) { o.x = 2; }',
      /kept across b\(\)/,
    ],
  ])('refuses %s', (_what, code, message) => {
    expect(() => transform(`${MARK}${code}\n`)).toThrow(message);
  });
});
