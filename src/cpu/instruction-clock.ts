/** How many instructions were retired: the CPU's time. Exact between runs, and wherever generated code calls TypeScript. */
import type { CpuState } from './cpu-state.ts';
import { INSTRUCTIONS, RUN_BASE } from './state.ts';

export class InstructionClock {
  readonly #state: CpuState;
  /** The record at which generated code called TypeScript last; 0 while none runs. */
  calledAt = 0;

  constructor(state: CpuState) {
    this.#state = state;
  }

  count(instructions: number): void {
    const state = this.#state;
    const lo = state.get(INSTRUCTIONS);
    const sum = (lo + instructions) | 0;
    state.set(INSTRUCTIONS, sum);
    if (sum >>> 0 < lo >>> 0) state.set(INSTRUCTIONS + 4, state.get(INSTRUCTIONS + 4) + 1);
  }

  /** While no generated code runs. */
  get retired(): number {
    const state = this.#state;
    return (state.get(INSTRUCTIONS + 4) >>> 0) * 4294967296 + (state.get(INSTRUCTIONS) >>> 0);
  }

  /** In the middle of a run, for the instruction at `record`. */
  at(record: number): number {
    return this.retired + ((record - this.#state.get(RUN_BASE)) >>> 5);
  }

  get inCall(): number {
    return this.calledAt !== 0 ? this.at(this.calledAt) : this.retired;
  }
}
