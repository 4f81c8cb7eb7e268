/** Comparisons of SSE and SSE2, into masks and into flags. NaN and denormals are left to `float/assist.ts`. */
import { and, eq, k32, k64, leU, ne, plain, select, sub, type Value, widen, zeroExtend } from '../expression.ts';
import { setCompareFlags } from '../flags.ts';
import { floatForm } from '../float/forms.ts';
import type { Semantics, Stage } from '../stage.ts';
import { I32 } from '../wasm-encoder.ts';
import { comparable, comparableLanes, DOUBLES, number, SINGLES } from './float.ts';
import { lane64, low64, ONES, readAligned, splat8, v2, vnot, vxor } from './vector.ts';

/** 0 equal, 1 less, 2 less or equal, 3 unordered; 4 to 7 the opposites. The operands are ordered. */
function predicate(s: Stage, a: Value, b: Value, immediate: Value, t: typeof SINGLES): Value {
  const kind = s.keep(and(immediate, k64(3)));
  const is = (n: number) => eq(kind, k64(n));
  const first = s.keep(select(is(0), s.keep(v2(t.equal, a, b)), s.keep(v2(t.less, a, b))));
  const second = s.keep(select(is(2), s.keep(v2(t.lessEqual, a, b)), s.keep(vnot(ONES))));
  const base = select(leU(kind, k64(1)), first, second);
  return vxor(base, splat8(sub(k64(0), widen(ne(and(immediate, k64(4)), k64(0))))));
}

export const comparePacked = (t: typeof SINGLES): Semantics => {
  const form = floatForm('compare', t.element, t.element, t.count);
  return (s) => {
    const b = readAligned(s, 1);
    const a = s.read(0);
    s.when(
      comparableLanes(s, t, a, b),
      () => s.write(0, predicate(s, a, b, s.read(2), t)),
      () => s.assist(form),
    );
  };
};

const SCALAR = { 4: floatForm('compare', 's', 's', 1), 8: floatForm('compare', 'd', 'd', 1) };

export const compareScalar: Semantics = (s) => {
  const bytes = s.bytes(1) as 4 | 8;
  const b = s.read(1);
  const a = s.read(0);
  s.when(
    comparable(a, b, bytes),
    () => {
      const t = bytes === 4 ? SINGLES : DOUBLES;
      const mask = predicate(s, s.keep(low64(a)), s.keep(low64(b)), s.read(2), t);
      s.write(0, zeroExtend(lane64(mask, 0), bytes));
    },
    () => s.assist(SCALAR[bytes]),
  );
};

/** COMISS and its like; UCOMISS doesn't mind quiet NaN. */
export const order = (quiet: boolean): Semantics => {
  const operation = quiet ? 'order-quiet' : 'order';
  const flags = { destination: 'flags' } as const;
  const forms = { 4: floatForm(operation, 's', 's', 1, flags), 8: floatForm(operation, 'd', 'd', 1, flags) };
  return (s) => {
    const bytes = s.bytes(1) as 4 | 8;
    const b = s.read(1);
    const a = s.read(0);
    const [equal, less] = bytes === 4 ? [0x5b, 0x5d] : [0x61, 0x63];
    const is = (opcode: number) => s.keep(plain(I32, opcode, number(a, bytes), number(b, bytes)));
    s.when(
      comparable(a, b, bytes),
      () => setCompareFlags(s, is(less), is(equal), k32(0)),
      () => s.assist(forms[bytes]),
    );
  };
};
