/** The local APIC's register file: numbers, what can be written, and the 256-bit sets in it. */

// Numbers of registers: the offset in the page divided by 16, and the MSR minus 0x800.
export const ID = 0x02;
export const VERSION = 0x03;
export const TPR = 0x08;
export const PPR = 0x0a;
export const EOI = 0x0b;
export const LDR = 0x0d;
export const DFR = 0x0e;
export const SVR = 0x0f;
export const ISR = 0x10;
export const TMR = 0x18;
export const IRR = 0x20;
export const ESR = 0x28;
export const ICR = 0x30;
export const ICR_HI = 0x31;
export const LVT_TIMER = 0x32;
export const LVT_THERMAL = 0x33;
export const LVT_COUNTERS = 0x34;
export const LVT_LINT0 = 0x35;
export const LVT_LINT1 = 0x36;
export const LVT_ERROR = 0x37;
export const TIMER_INITIAL = 0x38;
export const TIMER_CURRENT = 0x39;
export const TIMER_DIVIDE = 0x3e;
export const SELF_IPI = 0x3f;

// biome-ignore format: a table
/** The bits of each local vector that can be written. */
export const LVT_WRITABLE = [
  0x700ff, // timer: with its mode
  0x107ff, // thermal
  0x107ff, // counters
  0x1a7ff, // LINT0: with polarity and trigger mode
  0x1a7ff, // LINT1
  0x100ff, // error
];

export function hasBit(regs: Int32Array, set: number, vector: number): boolean {
  return (regs[set + (vector >> 5)] & (1 << (vector & 31))) !== 0;
}

export function setBit(regs: Int32Array, set: number, vector: number): void {
  regs[set + (vector >> 5)] |= 1 << (vector & 31);
}

export function clearBit(regs: Int32Array, set: number, vector: number): void {
  regs[set + (vector >> 5)] &= ~(1 << (vector & 31));
}

/** The highest vector in ISR, IRR or TMR; -1 if it is empty. */
export function highestBit(regs: Int32Array, set: number): number {
  for (let word = 7; word >= 0; word--) {
    if (regs[set + word] !== 0) return word * 32 + 31 - Math.clz32(regs[set + word]);
  }
  return -1;
}

/** ISR, TMR and IRR, which only the APIC itself changes. */
export function isReadOnlyVectorSet(reg: number): boolean {
  return reg >= ISR && reg < IRR + 8;
}

/** Whether RDMSR of a register works in x2APIC mode. */
export function isReadableInX2(reg: number): boolean {
  if (isReadOnlyVectorSet(reg) || (reg >= LVT_TIMER && reg <= TIMER_CURRENT)) return true;
  switch (reg) {
    case ID:
    case VERSION:
    case TPR:
    case PPR:
    case LDR:
    case SVR:
    case ESR:
    case ICR:
    case TIMER_DIVIDE:
      return true;
    default:
      return false;
  }
}

/** Whether WRMSR of this low word does. */
export function isWritableInX2(reg: number, value: number): boolean {
  if (reg >= LVT_TIMER && reg <= TIMER_INITIAL) return true;
  switch (reg) {
    case TPR:
    case SELF_IPI:
      return (value & ~0xff) === 0;
    case EOI:
    case ESR:
      return value === 0;
    case SVR:
    case ICR:
    case TIMER_DIVIDE:
      return true;
    default:
      return false;
  }
}
