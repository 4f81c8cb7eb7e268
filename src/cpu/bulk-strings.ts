/**
 * Many steps of REP MOVS or REP STOS at once: as far as the pages of both ends reach, when the software TLB has them. The
 * last step is always left to generated code, and so is whatever isn't plain: DF, devices, code pages, overlaps.
 */
import type { CpuState } from './cpu-state.ts';
import type { MemoryPort } from './memory-port.ts';
import { R_ADDRESS_SHIFT, R_SEGMENT } from './record.ts';
import { LINEAR_MASK, RAX, RCX, RDI, RSI, SEGMENT_BASE } from './state.ts';
import type { SoftTlb } from './tlb.ts';

const PAGE = 4096;

export class BulkStrings {
  readonly #state: CpuState;
  readonly #tlb: SoftTlb;
  readonly #memory: MemoryPort;
  #lo = 0;
  #hi = 0;

  constructor(state: CpuState, tlb: SoftTlb, memory: MemoryPort) {
    this.#state = state;
    this.#tlb = tlb;
    this.#memory = memory;
  }

  /** Linear address of what an index register points to. */
  #locate(register: number, base: number, shift: number): void {
    const s = this.#state;
    const lo = s.get(register);
    const hi = shift === 0 ? s.high(register) : 0;
    const baseLo = s.get(base);
    const sum = (lo >>> 0) + (baseLo >>> 0);
    this.#lo = sum | 0;
    this.#hi = (hi + s.high(base) + (sum >= 4294967296 ? 1 : 0)) & s.high(LINEAR_MASK);
  }

  /** Elements from the current address to the end of its page, if the TLB has it: `#host` is where. */
  #reach(bytes: number, write: boolean): number {
    const host = this.#tlb.lookup(this.#memory.dataSet, this.#lo, this.#hi, write);
    this.#host = host;
    return host === 0 ? 0 : Math.floor((PAGE - (this.#lo & (PAGE - 1))) / bytes);
  }

  #host = 0;

  /** Steps done, registers moved on; 0 for none. `copies`: MOVS. */
  run(record: number, bytes: number, copies: boolean): number {
    const s = this.#state;
    const shift = s.bytes[record + R_ADDRESS_SHIFT];
    // 16-bit addresses wrap within a page's reach.
    if (shift > 32) return 0;
    const rest = shift === 0 && s.high(RCX) !== 0 ? PAGE : (s.get(RCX) >>> 0) - 1;
    this.#locate(RDI, SEGMENT_BASE, shift);
    let steps = Math.min(rest, this.#reach(bytes, true));
    const to = this.#host;
    let from = 0;
    if (copies && steps > 0) {
      this.#locate(RSI, s.bytes[record + R_SEGMENT], shift);
      steps = Math.min(steps, this.#reach(bytes, false));
      from = this.#host;
      // A destination a little above its source gets what was just written.
      if (to > from && to < from + steps * bytes) return 0;
    }
    if (steps <= 0) return 0;
    if (copies) s.bytes.copyWithin(to, from, from + steps * bytes);
    else this.#fill(to, bytes, steps);
    this.#advance(RDI, steps * bytes, shift);
    if (copies) this.#advance(RSI, steps * bytes, shift);
    this.#advance(RCX, -steps, shift);
    return steps;
  }

  #fill(to: number, bytes: number, steps: number): void {
    const s = this.#state;
    const lo = s.get(RAX);
    if (bytes === 1 || (lo === 0 && (bytes < 8 || s.high(RAX) === 0))) {
      s.bytes.fill(lo & 255, to, to + steps * bytes);
      return;
    }
    // The first element, then twice as much each time.
    const source = s.layout.state + RAX;
    s.bytes.copyWithin(to, source, source + bytes);
    const end = steps * bytes;
    for (let done = bytes; done < end; done *= 2) s.bytes.copyWithin(to + done, to, to + Math.min(done, end - done));
  }

  #advance(register: number, by: number, shift: number): void {
    const s = this.#state;
    const sum = (s.get(register) >>> 0) + by;
    const carry = sum >= 4294967296 ? 1 : sum < 0 ? -1 : 0;
    s.setPair(register, sum | 0, shift === 0 ? (s.high(register) + carry) | 0 : 0);
  }
}
