/** Near jumps, calls and returns. A target that isn't canonical is the jump's own fault; one that isn't there faults there. */
import { add, and32, eq, geU, k64, ne, sub, type Value } from '../expression.ts';
import { condition, zeroFlag } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';
import { CANONICAL_HALF, RCX } from '../state.ts';

const VECTOR_GP = 13;

/** To be checked before anything of the instruction has happened. Below 2^32 all addresses are canonical. */
function checkTarget(s: Stage, target: Value): void {
  const half = s.state(CANONICAL_HALF, 8);
  s.when(geU(add(target, half), add(half, half)), () => s.raise(VECTOR_GP));
}

export const JCC = (code: number): Semantics => {
  return (s) => s.when(condition(s, code), () => s.jumpRelative());
};

export const JMP: Semantics = (s) => s.jumpRelative();

export const JMP_TO: Semantics = (s) => {
  const target = s.read(0);
  checkTarget(s, target);
  s.jump(target);
};

export const CALL: Semantics = (s) => {
  s.push(s.nextRip(), s.bytes(0));
  s.jumpRelative();
};

export const CALL_TO: Semantics = (s) => {
  const target = s.read(0);
  checkTarget(s, target);
  s.push(s.nextRip(), s.bytes(0));
  s.jump(target);
};

/** Operand 0, not read, has the width of the stack; operand 1 the bytes to drop. */
const ret =
  (dropped: (s: Stage) => Value): Semantics =>
  (s) => {
    const bytes = s.bytes(0);
    const target = s.top(bytes);
    checkTarget(s, target);
    s.popped(bytes, dropped(s));
    s.jump(target);
  };

export const RET = ret(() => k64(0));
export const RET_DROP = ret((s) => s.read(1));

function countDown(s: Stage): Value {
  const left = s.addressMask(sub(s.register(RCX, 8), k64(1)));
  const kept = s.keep(left);
  s.setAddressRegister(RCX, kept);
  return ne(kept, k64(0));
}

export const LOOP: Semantics = (s) => {
  s.when(countDown(s), () => s.jumpRelative());
};

export const LOOPE: Semantics = (s) => {
  const more = s.keep(countDown(s));
  s.when(and32(more, ne(zeroFlag(s), k64(0))), () => s.jumpRelative());
};

export const LOOPNE: Semantics = (s) => {
  const more = s.keep(countDown(s));
  s.when(and32(more, eq(zeroFlag(s), k64(0))), () => s.jumpRelative());
};

export const JRCXZ: Semantics = (s) => {
  s.when(eq(s.addressMask(s.register(RCX, 8)), k64(0)), () => s.jumpRelative());
};
