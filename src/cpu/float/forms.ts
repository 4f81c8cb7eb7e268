/**
 * Which floating-point instruction generated code leaves to TypeScript: it names a form by its number when its own
 * arithmetic, which knows no flags, rounding modes or denormals, isn't sure of being right.
 */

/** Elements: s single, d double, i 32-bit integer, q 64-bit integer. */
export type Element = 's' | 'd' | 'i' | 'q';

export type FloatOperation =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'min'
  | 'max'
  | 'sqrt'
  | 'compare'
  | 'order'
  | 'order-quiet'
  | 'convert'
  | 'truncate';

/** Where an operand is when it isn't in memory. */
export type Place = 'xmm' | 'general' | 'mmx' | 'flags';

export interface FloatForm {
  readonly operation: FloatOperation;
  readonly from: Element;
  readonly to: Element;
  readonly lanes: number;
  readonly source: Place;
  readonly destination: Place;
  /** What the result leaves of the register becomes zero. */
  readonly clears: boolean;
}

export const FLOAT_FORMS: FloatForm[] = [];

/** Number of a form, for `Stage.assist`. */
export function floatForm(
  operation: FloatOperation,
  from: Element,
  to: Element,
  lanes: number,
  more: Partial<FloatForm> = {},
): number {
  const form = { operation, from, to, lanes, source: 'xmm', destination: 'xmm', clears: false, ...more } as const;
  return FLOAT_FORMS.push(form) - 1;
}

export const ELEMENT_BYTES: Readonly<Record<Element, number>> = { s: 4, d: 8, i: 4, q: 8 };
