/** Interrupt wires: a device holds an `IrqLine`, the other end is a pin of an interrupt controller. */
export interface IrqSink {
  /** The wire at `pin` has this level now; called again with the same level it changes nothing. */
  setPin(pin: number, level: boolean): void;
}

export class IrqLine {
  level = false;
  private readonly sink: IrqSink;
  private readonly pin: number;

  constructor(sink: IrqSink, pin: number) {
    this.sink = sink;
    this.pin = pin;
  }

  set(level: boolean): void {
    if (level === this.level) return;
    this.level = level;
    this.sink.setPin(this.pin, level);
  }

  /** A rising edge, whatever the level was; the wire stays high. */
  strobe(): void {
    this.set(false);
    this.set(true);
  }
}

/** A wire that leads nowhere. */
export const NO_IRQ: IrqSink = { setPin: () => {} };

/** An ISA interrupt goes to the PIC and to the IOAPIC, where the timer's, 0, is pin 2 (the MADT says so). */
export class IsaIrqs implements IrqSink {
  /** The wires that have been asked for, for whoever copies their state. */
  readonly lines: IrqLine[] = [];
  private readonly pic: IrqSink;
  private readonly ioapic: IrqSink;

  constructor(pic: IrqSink, ioapic: IrqSink) {
    this.pic = pic;
    this.ioapic = ioapic;
  }

  setPin(irq: number, level: boolean): void {
    if (irq < 16) this.pic.setPin(irq, level);
    if (irq !== 2) this.ioapic.setPin(irq === 0 ? 2 : irq, level);
  }

  /** A wire from a device to an interrupt. */
  line(irq: number): IrqLine {
    const line = new IrqLine(this, irq);
    this.lines.push(line);
    return line;
  }
}
