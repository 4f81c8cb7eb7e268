/** What a handler of generated code is given: kinds of operands, functions to call, ways out. */
/** Bits of the last parameter of `slow`, above the size. */
export const SLOW_WRITE = 0x100;
/** The place is read first: for a device that is an access of its own. */
export const SLOW_MODIFY = 0x400;
/** The access is the stack's own (PUSH, POP), not that of a memory operand. */
export const SLOW_STACK = 0x200;

/** Functions of the module's environment, by their index. */
export interface Imports {
  readonly slow: number;
  readonly commit: number;
  readonly divide: number;
  readonly assist: number;
  readonly bulk: number;
}

/** Where handlers go when they are done; labels as in `FunctionBuilder`. Groups have `next` and `fault` only. */
export interface Exits {
  next(): void;
  fault(): void;
  /** To the linear address in local `target`. */
  jump(): void;
  /** To where the record's link leads. */
  link(): void;
  repeat(): void;
  /** The same after `steps` (a local) of them. */
  repeatMany(steps: number): void;
}

export interface OperandKind {
  readonly kind: string;
  readonly bytes: number;
}
