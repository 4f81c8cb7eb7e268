/**
 * The PCI host bridge: configuration space of bus 0 through ports 0xcf8 and 0xcfc (mechanism 1), a window of guest physical addresses
 * in which the functions' BARs lie wherever the guest puts them, wires for INTA to the IOAPIC and to the PICs, and the reset register
 * that lies in the address port. The bridge itself is function 0 of slot 0; each device has a slot of its own with one function.
 */
import type { MmioDevice, PortDevice } from '../bus.ts';
import type { IrqSink } from '../irq.ts';
import { type PowerState, RESET } from '../power.ts';
import type { InitLine } from '../reset-ports.ts';
import { PciFunction } from './pci-function.ts';

export const PCI_PORT = 0xcf8;
export const PCI_PORTS = 8;
export const RESET_PORT = 0xcf9;
/** What the FADT tells the guest to write to the reset port: a full reset, now. */
export const RESET_VALUE = 0x06;
/** Where BARs can be: from the end of the largest RAM to the IOAPIC. */
export const PCI_WINDOW_GPA = 0xc0000000;
export const PCI_WINDOW_BYTES = 0x3ec00000;
/** Slots, the bridge's included. */
export const PCI_SLOTS = 32;

const DATA_PORT = 0xcfc;
const RESET_NOW = 0x04;
/** The whole machine; only its processors, if the bit is clear. */
const RESET_ALL = 0x02;
const ENABLE = 1 << 31;
/** IOAPIC pins of INTA, by slot. */
const FIRST_PIN = 16;
const PINS = 8;
/** What a guest without the IOAPIC gets: inputs of the second PIC, which the firmware makes level-triggered. */
export const PIC_IRQS = [10, 11];

/** The global interrupt of a slot's INTA; the DSDT says the same. */
export function pinOfSlot(slot: number): number {
  return FIRST_PIN + (slot % PINS);
}

/** The interrupt of a slot's INTA at the PICs; the DSDT says the same, and so does the function's interrupt line register. */
export function irqOfSlot(slot: number): number {
  return PIC_IRQS[slot & 1];
}

export class PciHost implements PortDevice, MmioDevice {
  address = 0;
  resetControl = 0;
  /** A bit a slot: who asserts INTA. */
  intx = 0;
  readonly functions: (PciFunction | null)[] = Array.from({ length: PCI_SLOTS }, () => null);
  private readonly power: PowerState;
  private readonly init: InitLine;
  private readonly ioapic: IrqSink;
  private readonly pic: IrqSink;

  constructor(power: PowerState, init: InitLine, ioapic: IrqSink, pic: IrqSink) {
    this.power = power;
    this.init = init;
    this.ioapic = ioapic;
    this.pic = pic;
    // The 82441FX, which everybody knows.
    this.functions[0] = new PciFunction({ vendor: 0x8086, device: 0x1237, subsystem: 0, revision: 2, class: 0x060000 });
  }

  /** A slot's wire; slots that share a pin are joined by an OR. */
  setIntx(slot: number, level: boolean): void {
    this.intx = level ? this.intx | (1 << slot) : this.intx & ~(1 << slot);
    const sharing = 0x01010101 << (slot % PINS);
    this.ioapic.setPin(pinOfSlot(slot), (this.intx & sharing) !== 0);
    this.pic.setPin(irqOfSlot(slot), (this.intx & (0x55555555 << (slot & 1))) !== 0);
  }

  portRead(port: number, bytes: number): number {
    if (port >= DATA_PORT) return this.dataRead(port - DATA_PORT, bytes);
    if (port === PCI_PORT && bytes === 4) return this.address;
    if (port === RESET_PORT && bytes === 1) return this.resetControl;
    return -1;
  }

  portWrite(port: number, bytes: number, value: number): void {
    if (port >= DATA_PORT) {
      this.dataWrite(port - DATA_PORT, bytes, value);
    } else if (port === PCI_PORT && bytes === 4) {
      this.address = value & ~0x7f000003;
    } else if (port === RESET_PORT && bytes === 1) {
      this.resetControl = value & ~RESET_NOW;
      if (!(value & RESET_NOW)) return;
      if (value & RESET_ALL) this.power.ask(RESET);
      else this.init.pulse();
    }
  }

  mmioRead(offset: number, bytes: number): number {
    const gpa = PCI_WINDOW_GPA + offset;
    for (const fn of this.functions) {
      const device = fn?.decode(gpa);
      if (device) return device.mmioRead(fn!.decodedOffset, bytes);
    }
    return -1;
  }

  mmioWrite(offset: number, bytes: number, value: number): void {
    const gpa = PCI_WINDOW_GPA + offset;
    for (const fn of this.functions) {
      const device = fn?.decode(gpa);
      if (device) return device.mmioWrite(fn!.decodedOffset, bytes, value);
    }
  }

  private dataRead(at: number, bytes: number): number {
    const fn = this.selected();
    if (fn === null || at + bytes > 4) return -1;
    return fn.readConfig((this.address & 0xfc) + at, bytes);
  }

  private dataWrite(at: number, bytes: number, value: number): void {
    if (at + bytes <= 4) this.selected()?.writeConfig((this.address & 0xfc) + at, bytes, value);
  }

  /** Bus 0, function 0, or nobody. */
  private selected(): PciFunction | null {
    if (!(this.address & ENABLE) || this.address & 0xff0700) return null;
    return this.functions[(this.address >>> 11) & 31];
  }
}
