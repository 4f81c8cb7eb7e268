/**
 * A 16550A serial port: 16-byte receive FIFO, interrupts, loopback. Claims 8 ports, 1 byte wide (0x3f8, IRQ 4).
 *
 * Towards the host: each byte that the guest sends goes to `sink` at once, so the transmitter is always empty. `receive`
 * queues bytes for the guest; they enter the FIFO at the line's speed in virtual time and wait while it is full, so nothing that
 * the host sends is lost.
 */
import type { PortDevice } from './bus.ts';
import type { TimerClient, VirtualClock } from './clock.ts';
import type { IrqLine } from './irq.ts';

export const COM1_PORT = 0x3f8;
export const COM1_IRQ = 4;
export const UART_PORTS = 8;

export interface ByteSink {
  writeByte(byte: number): void;
}

const IER_RDA = 1;
const IER_THRE = 2;
const IER_LINE = 4;
const IER_MODEM = 8;
const IIR_MODEM = 0x00;
const IIR_NONE = 0x01;
const IIR_THRE = 0x02;
const IIR_RDA = 0x04;
const IIR_LINE = 0x06;
const IIR_TIMEOUT = 0x0c;
const IIR_FIFOS = 0xc0;
const FCR_ENABLE = 1;
const FCR_CLEAR_RX = 2;
const LCR_DLAB = 0x80;
const MCR_OUT2 = 0x08;
const MCR_LOOP = 0x10;
const LSR_DR = 0x01;
const LSR_OE = 0x02;
const LSR_ERRORS = 0x1e;
const LSR_EMPTY = 0x60;
/** Carrier, data set ready, clear to send: somebody listens. */
const MSR_CONNECTED = 0xb0;
const MSR_RI = 0x40;

const FIFO_BYTES = 16;
const TRIGGERS = [1, 4, 8, 14];
const CLOCK_HZ = 1843200;
const NO_BYTES = new Uint8Array(0);

export class Uart16550 implements PortDevice, TimerClient {
  ier = 0;
  fcr = 0;
  lcr = 0;
  mcr = 0;
  scratch = 0;
  divisor = 1;
  modem = MSR_CONNECTED;
  lineErrors = 0;
  /** Latched: the transmitter has become empty, and the guest has not been told. */
  emptyLatch = false;
  /** Bytes below the trigger level have waited for four characters' time. */
  timedOut = false;
  readonly fifo = new Uint8Array(FIFO_BYTES);
  fifoHead = 0;
  fifoCount = 0;
  /** What the host has sent and the FIFO has not taken: a ring that grows. */
  queue = new Uint8Array(64);
  queueHead = 0;
  queueCount = 0;
  private readonly clock: VirtualClock;
  private readonly irq: IrqLine;
  private readonly sink: ByteSink;
  private readonly timer: number;

  constructor(clock: VirtualClock, irq: IrqLine, sink: ByteSink) {
    this.clock = clock;
    this.irq = irq;
    this.sink = sink;
    this.timer = clock.addTimer(this);
  }

  /** The MR pin. What the host has sent and the FIFO has not taken still comes. */
  reset(): void {
    this.ier = 0;
    this.fcr = 0;
    this.lcr = 0;
    this.mcr = 0;
    this.scratch = 0;
    this.divisor = 1;
    this.modem = MSR_CONNECTED;
    this.lineErrors = 0;
    this.emptyLatch = false;
    this.timedOut = false;
    this.fifoCount = 0;
    this.clock.cancel(this.timer);
    this.irq.set(false);
    this.receive(NO_BYTES);
  }

  /** Host side: bytes for the guest. */
  receive(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (this.queueCount === this.queue.length) this.growQueue();
      this.queue[(this.queueHead + this.queueCount++) % this.queue.length] = byte;
    }
    if (this.queueCount > 0 && this.clock.deadlineOf(this.timer) > this.clock.now + this.characterNs()) {
      this.clock.schedule(this.timer, this.clock.now + this.characterNs());
    }
  }

  portRead(port: number): number {
    switch (port & 7) {
      case 0:
        return this.lcr & LCR_DLAB ? this.divisor & 0xff : this.readByte();
      case 1:
        return this.lcr & LCR_DLAB ? this.divisor >> 8 : this.ier;
      case 2:
        return this.readIir();
      case 3:
        return this.lcr;
      case 4:
        return this.mcr;
      case 5:
        return this.readLsr();
      case 6: {
        const modem = this.modem;
        this.modem &= 0xf0;
        this.update();
        return modem;
      }
      default:
        return this.scratch;
    }
  }

  portWrite(port: number, _bytes: number, value: number): void {
    switch (port & 7) {
      case 0:
        if (this.lcr & LCR_DLAB) this.divisor = (this.divisor & 0xff00) | value;
        else this.transmit(value);
        break;
      case 1:
        if (this.lcr & LCR_DLAB) this.divisor = (this.divisor & 0xff) | (value << 8);
        else this.writeIer(value & 0x0f);
        break;
      case 2:
        this.writeFcr(value);
        break;
      case 3:
        this.lcr = value;
        break;
      case 4:
        this.writeMcr(value & 0x1f);
        break;
      case 7:
        this.scratch = value;
        break;
    }
  }

  /** A character's time has passed on the line: the next byte from the host, or the silence after the last one. */
  onTimer(): void {
    if (this.queueCount > 0) {
      if (this.fifoCount >= this.capacity() || this.mcr & MCR_LOOP) return; // goes on when the guest reads
      this.pushByte(this.queue[this.queueHead]);
      this.queueHead = (this.queueHead + 1) % this.queue.length;
      this.queueCount--;
      this.clock.schedule(this.timer, this.clock.now + this.characterNs() * (this.queueCount > 0 ? 1 : 4));
    } else if (this.fifoCount > 0) {
      this.timedOut = true;
    }
    this.update();
  }

  private transmit(byte: number): void {
    if (this.mcr & MCR_LOOP) this.pushByte(byte);
    else this.sink.writeByte(byte);
    this.emptyLatch = true;
    this.update();
  }

  private pushByte(byte: number): void {
    if (this.fifoCount < this.capacity()) {
      this.fifo[(this.fifoHead + this.fifoCount++) % FIFO_BYTES] = byte;
    } else {
      this.lineErrors |= LSR_OE;
    }
    this.timedOut = false;
  }

  private readByte(): number {
    if (this.fifoCount === 0) return 0;
    const byte = this.fifo[this.fifoHead];
    this.fifoHead = (this.fifoHead + 1) % FIFO_BYTES;
    this.fifoCount--;
    this.timedOut = false;
    if (this.clock.deadlineOf(this.timer) === Infinity && (this.queueCount > 0 || this.fifoCount > 0)) {
      this.clock.schedule(this.timer, this.clock.now + this.characterNs() * (this.queueCount > 0 ? 1 : 4));
    }
    this.update();
    return byte;
  }

  private readIir(): number {
    const source = this.source();
    if (source === IIR_THRE) {
      this.emptyLatch = false;
      this.update();
    }
    return source | (this.fcr & FCR_ENABLE ? IIR_FIFOS : 0);
  }

  private readLsr(): number {
    const lsr = LSR_EMPTY | this.lineErrors | (this.fifoCount > 0 ? LSR_DR : 0);
    this.lineErrors = 0;
    this.update();
    return lsr;
  }

  private writeIer(value: number): void {
    // The transmitter is always empty, and enabling the interrupt tells so.
    if (value & ~this.ier & IER_THRE) this.emptyLatch = true;
    this.ier = value;
    this.update();
  }

  private writeFcr(value: number): void {
    if ((value ^ this.fcr) & FCR_ENABLE || value & FCR_CLEAR_RX) {
      this.fifoCount = 0;
      this.timedOut = false;
      if (this.queueCount > 0) this.clock.schedule(this.timer, this.clock.now + this.characterNs());
    }
    this.fcr = value & (FCR_ENABLE | 0xc0);
    this.update();
  }

  private writeMcr(value: number): void {
    this.mcr = value;
    // In loopback DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD.
    const pins =
      value & MCR_LOOP
        ? ((value & 1) << 5) | ((value & 2) << 3) | ((value & 4) << 4) | ((value & 8) << 4)
        : MSR_CONNECTED;
    const changed = (pins ^ this.modem) & 0xf0;
    // The ring indicator reports only its falling edge.
    const delta = (changed & ~MSR_RI) | (changed & MSR_RI & this.modem);
    this.modem = pins | (this.modem & 0x0f) | (delta >> 4);
    if (!(value & MCR_LOOP) && this.queueCount > 0) {
      this.clock.schedule(this.timer, this.clock.now + this.characterNs());
    }
    this.update();
  }

  /** What IIR shows: the pending interrupt of the highest priority. */
  private source(): number {
    if (this.ier & IER_LINE && this.lineErrors & LSR_ERRORS) return IIR_LINE;
    if (this.ier & IER_RDA && this.fifoCount >= this.trigger()) return IIR_RDA;
    if (this.ier & IER_RDA && this.timedOut && this.fifoCount > 0) return IIR_TIMEOUT;
    if (this.ier & IER_THRE && this.emptyLatch) return IIR_THRE;
    if (this.ier & IER_MODEM && this.modem & 0x0f) return IIR_MODEM;
    return IIR_NONE;
  }

  /** OUT2 gates the interrupt on a PC; in loopback the pin is off. */
  private update(): void {
    this.irq.set((this.mcr & (MCR_OUT2 | MCR_LOOP)) === MCR_OUT2 && this.source() !== IIR_NONE);
  }

  private capacity(): number {
    return this.fcr & FCR_ENABLE ? FIFO_BYTES : 1;
  }

  private trigger(): number {
    return this.fcr & FCR_ENABLE ? TRIGGERS[this.fcr >> 6] : 1;
  }

  /** A start bit, eight bits, a stop bit: 87 us at 115200 baud. */
  private characterNs(): number {
    return Math.round((16 * Math.max(this.divisor, 1) * 10 * 1e9) / CLOCK_HZ);
  }

  private growQueue(): void {
    const grown = new Uint8Array(this.queue.length * 2);
    for (let i = 0; i < this.queueCount; i++) grown[i] = this.queue[(this.queueHead + i) % this.queue.length];
    this.queue = grown;
    this.queueHead = 0;
  }
}
