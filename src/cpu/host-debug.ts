/**
 * What a debugger outside of the guest wants of a CPU, beside its breakpoints (`breakpoints.ts`), and why a run ended with EXIT_DEBUG.
 * The guest sees nothing of it: no trap flag, no debug register.
 */

/** `step`: the instruction is done, or an exception of it delivered. `code`: before the instruction. `data`: behind it. */
export type DebugCause = 'step' | 'code' | 'data';

export class HostDebug {
  /** A run is one instruction. Interrupts wait, so that it is the one that the debugger sees. */
  singleStep = false;
  cause: DebugCause = 'step';
  #passes = false;
  #lo = 0;
  #hi = 0;

  /** The debugger knows that the CPU stands at this breakpoint: it goes on over it once. */
  pass(lo: number, hi: number): void {
    this.#passes = true;
    this.#lo = lo;
    this.#hi = hi;
  }

  passesAt(lo: number, hi: number): boolean {
    return this.#passes && this.#lo === lo && this.#hi === hi;
  }

  /** An instruction is done, wherever it was. */
  passed(): void {
    this.#passes = false;
  }
}
