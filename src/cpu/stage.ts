/**
 * What a description of an instruction is written in. A stage turns it into code: for the interpreter the operands come
 * from the decoded record, for a translator they are constants; the description can't tell.
 *
 * Integers are i64 and zero-extended from their size, unless a function says otherwise; conditions are i32.
 *
 * **Redo.** Whatever can fault (`read` and `readForWrite` of memory, `load`, `loadForWrite`, a first `write` or `store`)
 * comes before the first change of architectural state (a register, a flag). A description that keeps this order can be
 * begun again after a miss or a fault. `StagedWrite.put` can't fault any more.
 */
import type { Value } from './expression.ts';

/** A place in memory that was found writable. */
export interface StagedWrite {
  readonly value: Value;
  put(value: Value): void;
}

export interface Stage {
  /** Size of operand `i` in bytes. */
  bytes(i: number): number;
  isMemory(i: number): boolean;
  isImmediate(i: number): boolean;

  /** Evaluates now; the result can be used any number of times. */
  keep(value: Value): Value;

  read(i: number): Value;
  /** For an operand that is read, then written: takes the right to write first. */
  readForWrite(i: number): Value;
  write(i: number, value: Value): void;
  /** Writes the low bytes of a vector register. */
  writeLow(i: number, value: Value, bytes: number): void;
  /** Effective address of the memory operand, without its segment. */
  effectiveAddress(): Value;
  /** Linear address of the memory operand, moved by `distance` bytes. */
  linearAddress(distance?: Value): Value;

  /** A general register by its offset in the state. */
  register(offset: number, bytes: number): Value;
  setRegister(offset: number, bytes: number, value: Value): void;
  /** Any other word of the state. */
  state(offset: number, bytes: number): Value;
  setState(offset: number, bytes: number, value: Value): void;

  load(linear: Value, bytes: number): Value;
  store(linear: Value, bytes: number, value: Value): void;
  loadForWrite(linear: Value, bytes: number): StagedWrite;

  /** Writes below the stack pointer, then moves it. `check` may raise a fault that comes behind the push's own. */
  push(value: Value, bytes: number, check?: () => void): void;
  /** Linear address of a place in the stack segment, for an access of that width. */
  stackAddress(pointer: Value, bytes: number): Value;
  /** Loads from the stack segment. */
  stackLoad(pointer: Value, bytes: number): Value;
  /** What the stack pointer points to; `popped` moves it. */
  top(bytes: number): Value;
  popped(bytes: number, more?: Value): void;

  /** Address size of implicit operands (strings), in bytes; their source segment's base. */
  addressMask(address: Value): Value;
  sourceSegmentBase(): Value;
  /** Sets an implicit address or count register to a value that is already masked: 16-bit addresses keep the rest. */
  setAddressRegister(offset: number, value: Value): void;

  flagResult(): Value;
  flagCarry(): Value;
  setFlags(result: Value, carry: Value): void;

  when(condition: Value, then: () => void, otherwise?: () => void): void;
  /** Raises a fault at this instruction, with error code 0 if it has one. */
  raise(vector: number): void;
  /** Offset of the next instruction in its code segment, as CALL pushes it. */
  nextRip(): Value;
  /** Are there relative targets that must be held against the limit of the code segment? */
  readonly checksRelative: boolean;
  /** Raises #GP if the operand (a relative target) is one and lies beyond. Before anything of the instruction has happened. */
  checkRelative(): void;
  /** Jumps to the operand (a relative target). Ends the instruction, in the branch of `when` that it stands in. */
  jumpRelative(): void;
  /** Jumps to an offset in the code segment. */
  jump(offset: Value): void;
  /** Does the same instruction again, after a chance for interrupts. */
  repeat(): void;
  /** For REP MOVS (`copies`) and REP STOS: does many steps, if that can be, and then the same instruction again. */
  repeatMany(copies: boolean): void;

  /** Has `float/assist.ts` do the instruction, by a form's number, instead of what else the description would do. */
  assist(form: number): void;

  /** Calls the function of `slow-arithmetic.ts` of that name; false makes it raise #DE. */
  divide(signed: boolean, divisor: Value): void;
}

export type Semantics = (s: Stage) => void;
