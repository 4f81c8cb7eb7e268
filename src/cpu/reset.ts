/** The state after reset, except that execution starts nowhere: a loader sets CS, RIP and the control registers. */
import type { CpuState } from './cpu-state.ts';
import {
  CR0,
  DR6,
  DR7,
  FCW,
  FLAG_RESULT,
  GDTR_LIMIT,
  IDTR_LIMIT,
  INSTRUCTIONS,
  MXCSR,
  NO_EXCEPTION,
  PAT,
  PENDING_VECTOR,
  STATE_BYTES,
  XCR0,
} from './state.ts';

/** The same in the course of a run: the count of instructions, which is the machine's time, goes on. */
export function resetRunning(state: CpuState): void {
  const [lo, hi] = [state.get(INSTRUCTIONS), state.get(INSTRUCTIONS + 4)];
  resetState(state);
  state.setPair(INSTRUCTIONS, lo, hi);
}

export function resetState(state: CpuState): void {
  const { state: base } = state.layout;
  state.bytes.fill(0, base, base + STATE_BYTES);
  state.setPair(FLAG_RESULT, 1, 0);
  state.set(PENDING_VECTOR, NO_EXCEPTION);
  state.set(CR0, 0x60000010);
  state.set(GDTR_LIMIT, 0xffff);
  state.set(IDTR_LIMIT, 0xffff);
  state.set(DR6, 0xffff0ff0 | 0);
  state.set(DR7, 0x400);
  state.set(MXCSR, 0x1f80);
  state.set(FCW, 0x37f);
  state.set(XCR0, 1);
  state.setPair(PAT, 0x00070406, 0x00070406);
}
