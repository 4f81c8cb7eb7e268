/**
 * The interpreter's stage: operands come from the decoded record that local 0 points to. One stage writes one handler, for
 * one combination of operand kinds and sizes.
 *
 *     kind  operand
 *      r    general register (or any other word of the state)
 *      v    XMM register
 *      p    MMX register
 *      m    memory at base + displacement in a flat 64-bit address space
 *      n    the same with an index
 *      x    memory at any address: segment base, address size, masks
 *      c    CL
 *      i    immediate
 *      j    relative target in the same page: the record has a link
 *      k    relative target elsewhere
 *      l    relative target of 32 bits in 16-bit code, mostly beyond its segment's end
 */
import {
  add,
  add32,
  and,
  and32,
  eq32,
  gtU,
  isZero32,
  k32,
  k64,
  leU,
  or,
  shl,
  shrU,
  sub,
  type Value,
  widen,
  wrap,
  xor,
  zeroExtend,
} from './expression.ts';
import { call, type FunctionBuilder, loadFrom, storeTo } from './function-builder.ts';
import {
  R_ADDRESS_SHIFT,
  R_BASE,
  R_DISPLACEMENT,
  R_IMMEDIATE,
  R_INDEX,
  R_NEXT,
  R_OPERAND,
  R_SCALE,
  R_SEGMENT,
} from './record.ts';
import { type Exits, type Imports, type OperandKind, SLOW_MODIFY, SLOW_STACK, SLOW_WRITE } from './handler-contract.ts';
import type { Stage, StagedWrite } from './stage.ts';
import {
  CODE_MASK,
  CS_BASE,
  CS_LIMIT,
  FLAG_CARRY,
  FLAG_RESULT,
  FPR,
  type Layout,
  LINEAR_MASK,
  LOADS,
  PENDING_ERROR,
  PENDING_VECTOR,
  RCX,
  RIP_PAGE,
  RSP,
  RUN_BASE,
  SCRATCH_STORE,
  SS_BASE,
  STACK_MASK,
  STORES,
  TLB_ADDEND,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
} from './state.ts';
import { I32, I64, V128 } from './wasm-encoder.ts';

const VECTOR_GP = 13;

/** Locals of the function, and whether it counts loads and stores. */
export interface StageFrame {
  readonly tlb: number;
  readonly target: number;
  readonly base: number;
  readonly counts: boolean;
}

export class InterpreterStage implements Stage {
  readonly #f: FunctionBuilder;
  readonly #layout: Layout;
  readonly #imports: Imports;
  readonly #exits: Exits;
  readonly #operands: readonly OperandKind[];
  readonly #tlbLocal: number;
  readonly #targetLocal: number;
  readonly #baseLocal: number;
  readonly #counts: boolean;
  #write: StagedWrite | null = null;

  constructor(
    f: FunctionBuilder,
    layout: Layout,
    imports: Imports,
    exits: Exits,
    operands: readonly OperandKind[],
    frame: StageFrame,
  ) {
    this.#f = f;
    this.#layout = layout;
    this.#imports = imports;
    this.#exits = exits;
    this.#operands = operands;
    this.#tlbLocal = frame.tlb;
    this.#targetLocal = frame.target;
    this.#baseLocal = frame.base;
    this.#counts = frame.counts;
  }

  get #pc(): Value {
    return this.#f.get(I32, 0);
  }

  #field(offset: number, bytes: number): Value {
    return loadFrom(I32, bytes, this.#pc, offset);
  }

  bytes(i: number): number {
    return this.#operands[i].bytes;
  }

  isMemory(i: number): boolean {
    return 'mnx'.includes(this.#operands[i].kind);
  }

  isImmediate(i: number): boolean {
    return this.#operands[i].kind === 'i';
  }

  keep(value: Value): Value {
    return this.#f.keep(value);
  }

  read(i: number): Value {
    const { kind, bytes } = this.#operands[i];
    switch (kind) {
      case 'r':
        return this.keep(loadFrom(I64, bytes, this.#field(R_OPERAND + i, 1), this.#layout.state));
      case 'v':
        return this.keep(loadFrom(bytes === 16 ? V128 : I64, bytes, this.#vector(i), this.#layout.state));
      case 'p':
        return this.keep(loadFrom(I64, bytes, this.#field(R_OPERAND + i, 1), this.#layout.state + FPR));
      case 'c':
        return this.state(RCX, bytes);
      case 'i':
      case 'j':
      case 'k':
      case 'l':
        return this.keep(loadFrom(I64, bytes, this.#pc, R_IMMEDIATE));
      default:
        return this.load(this.linearAddress(), bytes);
    }
  }

  readForWrite(i: number): Value {
    if (!this.isMemory(i)) return this.read(i);
    this.#write = this.loadForWrite(this.linearAddress(), this.#operands[i].bytes);
    return this.#write.value;
  }

  write(i: number, value: Value): void {
    const { kind, bytes } = this.#operands[i];
    if (kind === 'r') {
      const slot = this.#field(R_OPERAND + i, 1);
      const whole = bytes === 4 ? zeroExtend(value, 4) : value;
      this.#f.emit(storeTo(whole, bytes === 4 ? 8 : bytes, slot, this.#layout.state));
    } else if (kind === 'v') {
      this.#f.emit(storeTo(value, bytes, this.#vector(i), this.#layout.state));
    } else if (kind === 'p') {
      const slot = this.#field(R_OPERAND + i, 1);
      this.#f.emit(storeTo(value, 8, slot, this.#layout.state + FPR));
      this.#f.emit(storeTo(k32(0xffff), 2, slot, this.#layout.state + FPR + 8));
    } else if (this.#write) {
      this.#write.put(value);
    } else {
      this.store(this.linearAddress(), bytes, value);
    }
  }

  writeLow(i: number, value: Value, bytes: number): void {
    this.#f.emit(storeTo(value, bytes, this.#vector(i), this.#layout.state));
  }

  /** XMM registers lie beyond what a byte can name: the field counts from the first of them. */
  #vector(i: number): Value {
    return add32(this.#field(R_OPERAND + i, 1), k32(256));
  }

  effectiveAddress(): Value {
    const kind = this.#operands.find((o) => 'mnx'.includes(o.kind))?.kind;
    const base = loadFrom(I64, 8, this.#field(R_BASE, 1), this.#layout.state);
    const displacement = loadFrom(I64, 8, this.#pc, R_DISPLACEMENT);
    if (kind === 'm') return this.keep(add(base, displacement));
    const index = loadFrom(I64, 8, this.#field(R_INDEX, 1), this.#layout.state);
    const whole = add(add(base, shl(index, widen(this.#field(R_SCALE, 1)))), displacement);
    if (kind === 'n') return this.keep(whole);
    return this.keep(this.addressMask(whole));
  }

  linearAddress(distance?: Value): Value {
    const flat = !this.#operands.some((o) => o.kind === 'x');
    const offset = this.effectiveAddress();
    const moved = distance ? add(offset, distance) : offset;
    if (flat) return this.keep(moved);
    const masked = distance ? this.addressMask(moved) : moved;
    return this.keep(and(add(masked, this.sourceSegmentBase()), this.state(LINEAR_MASK, 8)));
  }

  addressMask(address: Value): Value {
    const shift = this.keep(widen(this.#field(R_ADDRESS_SHIFT, 1)));
    return shrU(shl(address, shift), shift);
  }

  sourceSegmentBase(): Value {
    return loadFrom(I64, 8, this.#field(R_SEGMENT, 1), this.#layout.state);
  }

  setAddressRegister(offset: number, value: Value): void {
    const narrow = eq32(this.#field(R_ADDRESS_SHIFT, 1), k32(48));
    this.when(
      narrow,
      () => this.setState(offset, 2, value),
      () => this.setState(offset, 8, value),
    );
  }

  register(offset: number, bytes: number): Value {
    return this.state(offset, bytes);
  }

  setRegister(offset: number, bytes: number, value: Value): void {
    if (bytes === 4) this.setState(offset, 8, zeroExtend(value, 4));
    else this.setState(offset, bytes, value);
  }

  state(offset: number, bytes: number): Value {
    return this.keep(loadFrom(bytes === 16 ? V128 : I64, bytes, k32(0), this.#layout.state + offset));
  }

  setState(offset: number, bytes: number, value: Value): void {
    this.#f.emit(storeTo(value, bytes, k32(0), this.#layout.state + offset));
  }

  /** Address in memory for an access, after a look into the TLB and, on a miss, a call of `slow`. */
  #host(linear: Value, bytes: number, flags: number): Value {
    const write = (flags & SLOW_WRITE) !== 0;
    const f = this.#f;
    const shift = Math.log2(TLB_ENTRY_BYTES);
    const mask = (TLB_ENTRIES - 1) << shift;
    const entry = f.keep(add32(f.get(I32, this.#tlbLocal), and32(wrap(shrU(linear, k64(12 - shift))), k32(mask))));
    const tag = loadFrom(I64, 8, entry, write ? TLB_WRITE_TAG : TLB_READ_TAG);
    const host = f.local(I32);
    f.if(
      leU(xor(tag, linear), k64(4096 - bytes)),
      () => f.set(host, add32(loadFrom(I32, 4, entry, TLB_ADDEND), wrap(linear))),
      () => {
        const high = wrap(shrU(linear, k64(32)));
        // For whoever asks the time meanwhile. Groups have no base; the main function has stored it for them.
        if (this.#baseLocal >= 0) {
          f.emit(storeTo(f.get(I32, this.#baseLocal), 4, k32(0), this.#layout.state + RUN_BASE));
        }
        f.set(host, call(I32, this.#imports.slow, this.#pc, wrap(linear), high, k32(bytes | flags)));
        f.if(isZero32(f.get(I32, host)), () => this.#exits.fault());
      },
    );
    return f.get(I32, host);
  }

  /** Of an access that has been found possible. */
  #count(counter: number, bytes: number): void {
    if (!this.#counts) return;
    const at = this.#layout.state + counter;
    this.#f.emit(storeTo(add(loadFrom(I64, 8, k32(0), at), k64(bytes > 8 ? 2 : 1)), 8, k32(0), at));
  }

  #put(host: Value, bytes: number, value: Value): void {
    this.#count(STORES, bytes);
    this.#f.emit(storeTo(value, bytes, host));
    this.#f.if(eq32(host, k32(this.#layout.state + SCRATCH_STORE)), () => {
      this.#f.emit(call(I32, this.#imports.commit, this.#pc).code, [0x1a]);
    });
  }

  load(linear: Value, bytes: number): Value {
    return this.#load(linear, bytes, 0);
  }

  #load(linear: Value, bytes: number, flags: number): Value {
    const host = this.#host(this.keep(linear), bytes, flags);
    this.#count(LOADS, bytes);
    return this.keep(loadFrom(bytes === 16 ? V128 : I64, bytes, host));
  }

  store(linear: Value, bytes: number, value: Value): void {
    this.#put(this.#host(this.keep(linear), bytes, SLOW_WRITE), bytes, value);
  }

  loadForWrite(linear: Value, bytes: number): StagedWrite {
    const host = this.#host(this.keep(linear), bytes, SLOW_WRITE | SLOW_MODIFY);
    this.#count(LOADS, bytes);
    const value = this.keep(loadFrom(bytes === 16 ? V128 : I64, bytes, host));
    return { value, put: (v) => this.#put(host, bytes, v) };
  }

  /** In 64-bit mode the stack's own accesses of 8 bytes are flat; others go through the masks of the moment. */
  stackAddress(pointer: Value, bytes: number): Value {
    if (bytes === 8) return pointer;
    return this.keep(and(add(this.#stackMask(pointer, bytes), this.state(SS_BASE, 8)), this.state(LINEAR_MASK, 8)));
  }

  #stackMask(pointer: Value, bytes: number): Value {
    return this.keep(bytes === 8 ? pointer : and(pointer, this.state(STACK_MASK, 8)));
  }

  push(value: Value, bytes: number, check: () => void = () => {}): void {
    const kept = this.keep(value);
    const pointer = this.#stackMask(sub(this.state(RSP, 8), k64(bytes)), bytes);
    const host = this.#host(this.stackAddress(pointer, bytes), bytes, SLOW_WRITE | SLOW_STACK);
    check();
    this.#put(host, bytes, kept);
    this.#movePointer(pointer, bytes);
  }

  /** A narrow stack pointer leaves the rest of RSP alone. */
  #movePointer(pointer: Value, bytes: number): void {
    if (bytes === 8) {
      this.setState(RSP, 8, pointer);
      return;
    }
    const rest = and(this.state(RSP, 8), xor(this.state(STACK_MASK, 8), k64(-1)));
    this.setState(RSP, 8, or(rest, pointer));
  }

  stackLoad(pointer: Value, bytes: number): Value {
    return this.#load(this.stackAddress(pointer, bytes), bytes, SLOW_STACK);
  }

  top(bytes: number): Value {
    return this.stackLoad(this.state(RSP, 8), bytes);
  }

  popped(bytes: number, more: Value = k64(0)): void {
    this.#movePointer(this.#stackMask(add(add(this.state(RSP, 8), k64(bytes)), more), bytes), bytes);
  }

  flagResult(): Value {
    return this.state(FLAG_RESULT, 8);
  }

  flagCarry(): Value {
    return this.state(FLAG_CARRY, 8);
  }

  setFlags(result: Value, carry: Value): void {
    this.setState(FLAG_RESULT, 8, result);
    this.setState(FLAG_CARRY, 8, carry);
  }

  when(condition: Value, then: () => void, otherwise?: () => void): void {
    if (condition.known !== undefined) {
      if (condition.known) then();
      else otherwise?.();
      return;
    }
    this.#f.if(condition, then, otherwise);
  }

  raise(vector: number): void {
    this.#f.emit(storeTo(k32(vector), 4, k32(0), this.#layout.state + PENDING_VECTOR));
    this.#f.emit(storeTo(k32(0), 4, k32(0), this.#layout.state + PENDING_ERROR));
    this.#exits.fault();
  }

  nextRip(): Value {
    const linear = add(this.state(RIP_PAGE, 8), widen(this.#field(R_NEXT, 2)));
    return this.keep(and(sub(linear, this.state(CS_BASE, 8)), this.state(CODE_MASK, 8)));
  }

  /** Linear, and not wrapped around. */
  #relativeTarget(): Value {
    return add(this.state(RIP_PAGE, 8), loadFrom(I64, 8, this.#pc, R_IMMEDIATE));
  }

  /** As an offset in the code segment, which a 16-bit one wraps around. */
  #relativeOffset(): Value {
    const offset = sub(this.#relativeTarget(), this.state(CS_BASE, 8));
    return this.keep(zeroExtend(offset, this.#operands[0].bytes));
  }

  get checksRelative(): boolean {
    const { kind, bytes } = this.#operands[0];
    return kind === 'l' || bytes === 2;
  }

  checkRelative(): void {
    if (!this.checksRelative) return;
    this.when(gtU(this.#relativeOffset(), this.state(CS_LIMIT, 4)), () => this.raise(VECTOR_GP));
  }

  jumpRelative(): void {
    const { kind, bytes } = this.#operands[0];
    if (bytes === 2) {
      // A target that doesn't wrap around is where the record has it.
      const plain = sub(this.#relativeTarget(), this.state(CS_BASE, 8));
      if (kind === 'j') this.when(leU(plain, k64(0xffff)), () => this.#exits.link());
      this.jump(this.#relativeOffset());
      return;
    }
    if (kind === 'j') {
      this.#exits.link();
      return;
    }
    this.#f.set(this.#targetLocal, and(this.#relativeTarget(), this.state(CODE_MASK, 8)));
    this.#exits.jump();
  }

  jump(offset: Value): void {
    this.#f.set(this.#targetLocal, and(add(offset, this.state(CS_BASE, 8)), this.state(CODE_MASK, 8)));
    this.#exits.jump();
  }

  repeat(): void {
    this.#exits.repeat();
  }

  repeatMany(copies: boolean): void {
    const f = this.#f;
    const steps = f.local(I32);
    f.set(steps, call(I32, this.#imports.bulk, this.#pc, k32(this.bytes(0)), k32(copies ? 1 : 0)));
    f.if(f.get(I32, steps), () => this.#exits.repeatMany(steps));
  }

  assist(form: number): void {
    this.#f.if(isZero32(call(I32, this.#imports.assist, this.#pc, k32(form))), () => this.#exits.fault());
  }

  divide(signed: boolean, divisor: Value): void {
    const low = wrap(divisor);
    const high = wrap(shrU(divisor, k64(32)));
    const ok = call(I32, this.#imports.divide, k32(signed ? 1 : 0), low, high);
    this.#f.if(isZero32(ok), () => this.raise(0));
  }
}
