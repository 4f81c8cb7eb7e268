/**
 * MSI-X: a table of messages, each an address and a value that the device would store there. Such a store is an interrupt, so a
 * message goes to the APICs. A vector that is masked when it is due waits in the pending bit array.
 *
 *     BAR    0    table: 16 bytes a vector (address low and high, data, control)         800    pending bits
 */
import { type ApicBus, TO_ALL } from '../apic-bus.ts';
import type { MmioDevice } from '../bus.ts';

export const MSIX_CAPABILITY = 0x11;
export const MSIX_BAR_BYTES = 4096;
export const MSIX_PENDING = 0x800;
export const NO_VECTOR = 0xffff;
/** In the control word of the capability. */
export const MSIX_ENABLE = 1 << 15;
export const MSIX_MASK_ALL = 1 << 14;

const ENTRY_BYTES = 16;
const MASKED = 1;
const MAX_VECTORS = MSIX_PENDING / ENTRY_BYTES;

export class MsiX implements MmioDevice {
  readonly vectors: number;
  readonly table: Uint32Array;
  readonly pending: Uint32Array;
  /** MSIX_ENABLE and MSIX_MASK_ALL. */
  control = 0;
  private readonly bus: ApicBus;

  constructor(vectors: number, bus: ApicBus) {
    if (vectors < 1 || vectors > MAX_VECTORS) throw new RangeError(`${vectors} MSI-X vectors`);
    this.vectors = vectors;
    this.bus = bus;
    this.table = new Uint32Array(vectors * 4);
    this.pending = new Uint32Array(Math.ceil(vectors / 32));
    this.reset();
  }

  reset(): void {
    this.control = 0;
    this.pending.fill(0);
    for (let i = 0; i < this.vectors; i++) this.table.set([0, 0, 0, MASKED], i * 4);
  }

  get isEnabled(): boolean {
    return (this.control & MSIX_ENABLE) !== 0;
  }

  /** The guest has written the capability's control word. */
  setControl(control: number): void {
    this.control = control & (MSIX_ENABLE | MSIX_MASK_ALL);
    for (let i = 0; i < this.vectors; i++) this.sendPending(i);
  }

  /** An interrupt is due; a vector that doesn't exist is nobody's. */
  notify(vector: number): void {
    if (vector >= this.vectors || !this.isEnabled) return;
    this.pending[vector >>> 5] |= 1 << (vector & 31);
    this.sendPending(vector);
  }

  mmioRead(offset: number, _bytes: number): number {
    return this.word(offset & ~3) >>> (8 * (offset & 3));
  }

  mmioWrite(offset: number, bytes: number, value: number): void {
    const at = offset >>> 2;
    // Only whole words, as the specification asks.
    if (bytes !== 4 || offset & 3 || at >= this.table.length) return;
    this.table[at] = value;
    if ((at & 3) === 3) this.sendPending(at >>> 2);
  }

  private word(offset: number): number {
    if (offset < MSIX_PENDING) return this.table[offset >>> 2] ?? 0;
    return this.pending[(offset - MSIX_PENDING) >>> 2] ?? 0;
  }

  private sendPending(vector: number): void {
    const bit = 1 << (vector & 31);
    if (!(this.pending[vector >>> 5] & bit) || (this.control & (MSIX_ENABLE | MSIX_MASK_ALL)) !== MSIX_ENABLE) return;
    if (this.table[vector * 4 + 3] & MASKED) return;
    this.pending[vector >>> 5] &= ~bit;
    sendMessage(this.bus, this.table[vector * 4], this.table[vector * 4 + 1], this.table[vector * 4 + 2]);
  }
}

/** The APICs' share of a store of `data` at an address; one elsewhere than at 0xfee is no interrupt. */
export function sendMessage(bus: ApicBus, addressLo: number, addressHi: number, data: number): void {
  if (addressHi !== 0 || addressLo >>> 20 !== 0xfee) return;
  const logical = (addressLo & 4) !== 0;
  const field = (addressLo >>> 12) & 0xff;
  bus.send(!logical && field === 0xff ? TO_ALL : field, logical, (data >>> 8) & 7, data & 0xff, false, null);
}
