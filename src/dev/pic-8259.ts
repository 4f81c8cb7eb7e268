/**
 * The pair of 8259A interrupt controllers: inputs 0 to 7 on the master, 8 to 15 on the slave behind the master's input 2.
 * Claims ports 0x20, 0x21 (master), 0xa0, 0xa1 (slave), 0x4d0, 0x4d1 (edge or level), each 1 byte wide.
 *
 * `output` is the INTR wire, also driven onto `intr` (LINT0 of the boot processor's local APIC); the processor answers it with
 * `acknowledge`, which returns the vector.
 */
import type { PortDevice } from './bus.ts';
import type { IrqLine, IrqSink } from './irq.ts';

export const PIC_MASTER_PORT = 0x20;
export const PIC_SLAVE_PORT = 0xa0;
export const PIC_ELCR_PORT = 0x4d0;

const MASTER = 0;
const SLAVE = 1;
const CASCADE = 2;
/** The timer, the keyboard, the cascade, the clock and the coprocessor are always edge-triggered. */
const ELCR_MASK = [0xf8, 0xde];

export class Pic8259 implements PortDevice, IrqSink {
  output = false;
  // One element a chip.
  readonly irr = new Uint8Array(2);
  /** All masked at power-on. */
  readonly imr = new Uint8Array([0xff, 0xff]);
  readonly isr = new Uint8Array(2);
  readonly levels = new Uint8Array(2);
  readonly elcr = new Uint8Array(2);
  readonly base = new Uint8Array(2);
  /** Input of the highest priority. */
  readonly first = new Uint8Array(2);
  /** Initialization words still to come: 0 none, else the number of the next one (2, 3, 4). */
  readonly nextIcw = new Uint8Array(2);
  readonly needsIcw4 = new Uint8Array(2);
  readonly autoEoi = new Uint8Array(2);
  readonly rotateOnAutoEoi = new Uint8Array(2);
  readonly specialMask = new Uint8Array(2);
  readonly specialNested = new Uint8Array(2);
  readonly readsIsr = new Uint8Array(2);
  readonly polls = new Uint8Array(2);
  private readonly intr: IrqLine;

  constructor(intr: IrqLine) {
    this.intr = intr;
  }

  setPin(irq: number, level: boolean): void {
    const chip = irq >> 3;
    const bit = 1 << (irq & 7);
    if (level) {
      if (this.elcr[chip] & bit || !(this.levels[chip] & bit)) this.irr[chip] |= bit;
      this.levels[chip] |= bit;
    } else {
      if (this.elcr[chip] & bit) this.irr[chip] &= ~bit;
      this.levels[chip] &= ~bit;
    }
    this.update();
  }

  /** INTA: the vector of the pending interrupt, which is in service from now on; the spurious one if it has gone. */
  acknowledge(): number {
    const input = this.pending(MASTER);
    if (input < 0) return this.spurious(MASTER);
    this.serve(MASTER, input);
    let vector = this.base[MASTER] + input;
    if (input === CASCADE) {
      const second = this.pending(SLAVE);
      if (second < 0) vector = this.spurious(SLAVE);
      else {
        this.serve(SLAVE, second);
        vector = this.base[SLAVE] + second;
      }
    }
    this.update();
    return vector;
  }

  portRead(port: number): number {
    if (port >= PIC_ELCR_PORT) return this.elcr[port - PIC_ELCR_PORT];
    const chip = port >= PIC_SLAVE_PORT ? SLAVE : MASTER;
    if (this.polls[chip]) return this.poll(chip);
    if (port & 1) return this.imr[chip];
    return this.readsIsr[chip] ? this.isr[chip] : this.irr[chip];
  }

  portWrite(port: number, _bytes: number, value: number): void {
    if (port >= PIC_ELCR_PORT) {
      const chip = port - PIC_ELCR_PORT;
      this.elcr[chip] = value & ELCR_MASK[chip];
      return;
    }
    const chip = port >= PIC_SLAVE_PORT ? SLAVE : MASTER;
    if (port & 1) this.writeData(chip, value);
    else if (value & 0x10) this.initialize(chip, value);
    else if (value & 0x08) this.writeOcw3(chip, value);
    else this.writeOcw2(chip, value);
    this.update();
  }

  private initialize(chip: number, icw1: number): void {
    // A level that stays asserted needs a new edge (or a level-triggered input) to count again.
    this.irr[chip] = this.levels[chip] & this.elcr[chip];
    for (const field of [this.imr, this.isr, this.first, this.autoEoi, this.rotateOnAutoEoi, this.specialMask])
      field[chip] = 0;
    for (const field of [this.specialNested, this.readsIsr, this.polls]) field[chip] = 0;
    this.needsIcw4[chip] = icw1 & 1;
    this.nextIcw[chip] = 2;
  }

  private writeData(chip: number, value: number): void {
    switch (this.nextIcw[chip]) {
      case 2:
        this.base[chip] = value & 0xf8;
        this.nextIcw[chip] = 3;
        break;
      case 3: // which input the slave is on: wired, so not a choice
        this.nextIcw[chip] = this.needsIcw4[chip] ? 4 : 0;
        break;
      case 4:
        this.specialNested[chip] = (value >> 4) & 1;
        this.autoEoi[chip] = (value >> 1) & 1;
        this.nextIcw[chip] = 0;
        break;
      default:
        this.imr[chip] = value;
    }
  }

  private writeOcw2(chip: number, value: number): void {
    const input = value & 7;
    const rotates = (value & 0x80) !== 0;
    switch (value >> 5) {
      case 0: // rotate on automatic EOI: off, on
      case 4:
        this.rotateOnAutoEoi[chip] = rotates ? 1 : 0;
        break;
      case 1: // end of interrupt, of the highest one in service
      case 5: {
        const served = this.highest(chip, this.isr[chip]);
        if (served < 0) break;
        this.isr[chip] &= ~(1 << served);
        if (rotates) this.first[chip] = (served + 1) & 7;
        break;
      }
      case 3: // of a given one
      case 7:
        this.isr[chip] &= ~(1 << input);
        if (rotates) this.first[chip] = (input + 1) & 7;
        break;
      case 6:
        this.first[chip] = (input + 1) & 7;
        break;
    }
  }

  private writeOcw3(chip: number, value: number): void {
    if (value & 0x04) this.polls[chip] = 1;
    if (value & 0x02) this.readsIsr[chip] = value & 1;
    if (value & 0x40) this.specialMask[chip] = (value >> 5) & 1;
  }

  /** The answer to a poll command: acknowledges and names the input. */
  private poll(chip: number): number {
    this.polls[chip] = 0;
    const input = this.pending(chip);
    if (input < 0) return 0;
    this.serve(chip, input);
    this.update();
    return 0x80 | input;
  }

  private serve(chip: number, input: number): void {
    const bit = 1 << input;
    if (this.autoEoi[chip]) {
      if (this.rotateOnAutoEoi[chip]) this.first[chip] = (input + 1) & 7;
    } else {
      this.isr[chip] |= bit;
    }
    // A level-triggered request stays as long as its wire.
    if (!(this.elcr[chip] & bit)) this.irr[chip] &= ~bit;
  }

  private spurious(chip: number): number {
    this.update();
    return this.base[chip] + 7;
  }

  /** The input that asks for service and may have it; -1 if there is none. */
  private pending(chip: number): number {
    const asking = this.irr[chip] & ~this.imr[chip];
    const input = this.highest(chip, asking);
    if (input < 0) return -1;
    let served = this.isr[chip];
    if (this.specialMask[chip]) served &= ~this.imr[chip];
    if (chip === MASTER && this.specialNested[chip]) served &= ~(1 << CASCADE);
    const busy = this.highest(chip, served);
    return busy < 0 || this.rank(chip, input) < this.rank(chip, busy) ? input : -1;
  }

  private highest(chip: number, bits: number): number {
    if (bits === 0) return -1;
    let input = this.first[chip];
    while (!(bits & (1 << input))) input = (input + 1) & 7;
    return input;
  }

  private rank(chip: number, input: number): number {
    return (input - this.first[chip]) & 7;
  }

  private update(): void {
    // The slave's output is the master's input 2.
    const bit = 1 << CASCADE;
    if (this.pending(SLAVE) >= 0) {
      this.irr[MASTER] |= bit;
      this.levels[MASTER] |= bit;
    } else {
      this.irr[MASTER] &= ~bit;
      this.levels[MASTER] &= ~bit;
    }
    this.output = this.pending(MASTER) >= 0;
    this.intr.set(this.output);
  }
}
