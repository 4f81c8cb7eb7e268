/**
 * Near jumps, calls and returns. A target that isn't canonical, or beyond the end of the code segment, is the jump's own fault; one that
 * isn't there faults there. Of relative jumps of 32-bit code that end isn't checked.
 */
import { add, and32, eq, geU, gtU, k64, ne, sub, type Value } from '../expression.ts';
import { condition, zeroFlag } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';
import { CANONICAL_HALF, CS_LIMIT, RCX } from '../state.ts';

const VECTOR_GP = 13;

/**
 * To be checked before anything of the instruction has happened: a target of 64 bits must be canonical, others lie in the code
 * segment.
 */
function checkTarget(s: Stage, target: Value): void {
  if (s.bytes(0) !== 8) {
    s.when(gtU(target, s.state(CS_LIMIT, 4)), () => s.raise(VECTOR_GP));
    return;
  }
  const half = s.state(CANONICAL_HALF, 8);
  s.when(geU(add(target, half), add(half, half)), () => s.raise(VECTOR_GP));
}

/** Does what comes `before`, then jumps if the condition holds; unless the target faults. */
function jumpIf(s: Stage, condition: Value, before: () => void = () => {}): void {
  const taken = s.checksRelative ? s.keep(condition) : condition;
  if (s.checksRelative) s.when(taken, () => s.checkRelative());
  before();
  s.when(taken, () => s.jumpRelative());
}

export const JCC = (code: number): Semantics => {
  return (s) => jumpIf(s, condition(s, code));
};

export const JMP: Semantics = (s) => {
  s.checkRelative();
  s.jumpRelative();
};

export const JMP_TO: Semantics = (s) => {
  const target = s.read(0);
  checkTarget(s, target);
  s.jump(target);
};

export const CALL: Semantics = (s) => {
  s.push(s.nextRip(), s.bytes(0), () => s.checkRelative());
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

/** While the count, counted down, isn't 0. */
const loop =
  (more: (s: Stage) => Value | null): Semantics =>
  (s) => {
    const left = s.keep(s.addressMask(sub(s.register(RCX, 8), k64(1))));
    const also = more(s);
    const condition = s.keep(also ? and32(ne(left, k64(0)), also) : ne(left, k64(0)));
    jumpIf(s, condition, () => s.setAddressRegister(RCX, left));
  };

export const LOOP = loop(() => null);
export const LOOPE = loop((s) => ne(zeroFlag(s), k64(0)));
export const LOOPNE = loop((s) => eq(zeroFlag(s), k64(0)));

export const JRCXZ: Semantics = (s) => jumpIf(s, eq(s.addressMask(s.register(RCX, 8)), k64(0)));
