/** An exhibit: one script that runs twice, as KVM was and as it is. */
import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../vm/vm.ts';
import { type BugName, type Bugs, withBugs } from '../../bugs.ts';

export interface Exhibit<T> {
  /** What is done, and what was seen of it. */
  readonly script: (bugs: Bugs) => T;
  /** What is seen with the switch on, and with it off. */
  readonly damage: T;
  readonly mended: T;
  /** Bugs that the kernels of that time had too, and without which this one can't be seen: on in both runs. */
  readonly beside?: readonly BugName[];
}

/** Declares the tests of a switch. The title says what the damage is. */
export function exhibit<T>(bug: BugName, title: string, { script, damage, mended, beside = [] }: Exhibit<T>): void {
  describe(`the switch ${bug}`, () => {
    it(`on: ${title}`, () => expect(script(withBugs(bug, ...beside))).toEqual(damage));
    it('off: nothing of the kind', () => expect(script(withBugs(...beside))).toEqual(mended));
  });
}

/** Names of the invariants that do not hold. */
export function broken(vm: Vm): string[] {
  return [...new Set(vm.verify().map((line) => line.slice('INVARIANT '.length, line.indexOf(':'))))];
}

/** The message with which a call ends early, or 'done'. */
export function outcome(call: () => void): string {
  try {
    call();
    return 'done';
  } catch (error) {
    return (error as Error).message;
  }
}
