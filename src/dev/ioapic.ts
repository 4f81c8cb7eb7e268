/**
 * The IOAPIC: 24 pins, each with a redirection entry. Claims 4 KiB of gpa at 0xfec00000; registers are reached through a select
 * (offset 0) and a window (offset 0x10), 4 bytes wide. An edge at a masked pin is lost, a level is remembered, as in KVM.
 */
import { type ApicBus, DELIVER_EXTINT, TO_ALL } from './apic-bus.ts';
import type { MmioDevice } from './bus.ts';
import type { IrqSink } from './irq.ts';

export const IOAPIC_GPA = 0xfec00000;
export const IOAPIC_BYTES = 4096;
export const IOAPIC_PINS = 24;

const REG_ID = 0;
const REG_VERSION = 1;
const REG_ARBITRATION = 2;
const REG_REDIRECTION = 0x10;
const VERSION = 0x11 | ((IOAPIC_PINS - 1) << 16);

const VECTOR = 0xff;
const LOGICAL = 1 << 11;
const REMOTE_IRR = 1 << 14;
const LEVEL = 1 << 15;
const MASKED = 1 << 16;
/** Vector, delivery mode, destination mode, polarity, trigger mode, mask. */
const WRITABLE = 0x1afff;

export class IoApic implements MmioDevice, IrqSink {
  select = 0;
  id: number;
  /** Lower and upper word of each pin's entry. */
  readonly entries = new Int32Array(IOAPIC_PINS * 2);
  /** A bit a pin: the wires' levels. */
  levels = 0;
  private readonly bus: ApicBus;

  constructor(bus: ApicBus, id: number) {
    this.bus = bus;
    this.id = id;
    for (let pin = 0; pin < IOAPIC_PINS; pin++) this.entries[pin * 2] = MASKED;
    bus.ioapic = this;
  }

  setPin(pin: number, level: boolean): void {
    const bit = 1 << pin;
    const was = (this.levels & bit) !== 0;
    if (level === was) return;
    this.levels ^= bit;
    if (level) this.service(pin);
  }

  /** @see ApicBus.broadcastEoi */
  eoi(vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = this.entries[pin * 2];
      if ((entry & VECTOR) !== vector || !(entry & LEVEL)) continue;
      this.entries[pin * 2] = entry & ~REMOTE_IRR;
      if (this.levels & (1 << pin)) this.service(pin);
    }
  }

  mmioRead(offset: number, bytes: number): number {
    if (bytes < 4 && offset & 3) return 0;
    if ((offset & 0xff) === 0x00) return this.select;
    return (offset & 0xff) === 0x10 ? this.readRegister() : 0;
  }

  mmioWrite(offset: number, _bytes: number, value: number): void {
    if ((offset & 0xff) === 0x00) this.select = value & 0xff;
    else if ((offset & 0xff) === 0x10) this.writeRegister(value | 0);
  }

  private readRegister(): number {
    if (this.select === REG_ID || this.select === REG_ARBITRATION) return this.id << 24;
    if (this.select === REG_VERSION) return VERSION;
    const word = this.select - REG_REDIRECTION;
    return word >= 0 && word < IOAPIC_PINS * 2 ? this.entries[word] : 0;
  }

  private writeRegister(value: number): void {
    if (this.select === REG_ID) {
      this.id = (value >>> 24) & 15;
      return;
    }
    const word = this.select - REG_REDIRECTION;
    if (word < 0 || word >= IOAPIC_PINS * 2) return;
    if (word & 1) {
      this.entries[word] = value & (0xff << 24);
      return;
    }
    let entry = (value & WRITABLE) | (this.entries[word] & REMOTE_IRR);
    if (!(entry & LEVEL)) entry &= ~REMOTE_IRR;
    this.entries[word] = entry;
    // A level that has been waiting behind the mask.
    if (entry & LEVEL && this.levels & (1 << (word >> 1))) this.service(word >> 1);
  }

  private service(pin: number): void {
    const entry = this.entries[pin * 2];
    if (entry & (MASKED | REMOTE_IRR)) return;
    const mode = (entry >> 8) & 7;
    if (mode === DELIVER_EXTINT) return; // the PIC has its own wire
    const logical = (entry & LOGICAL) !== 0;
    const field = this.entries[pin * 2 + 1] >>> 24;
    const dest = !logical && field === 0xff ? TO_ALL : field;
    const level = (entry & LEVEL) !== 0;
    const taken = this.bus.send(dest, logical, mode, entry & VECTOR, level, null);
    if (taken && level) this.entries[pin * 2] |= REMOTE_IRR;
  }
}
