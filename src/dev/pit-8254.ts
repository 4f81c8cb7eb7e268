/**
 * The 8254 timer: channel 0 makes IRQ 0, channel 2 is for the speaker and for measuring (its gate and output are in port 0x61).
 * Claims ports 0x40 to 0x43 and 0x61, 1 byte wide. Counts are derived from virtual time whenever they are looked at; only
 * channel 0's interrupts are timer events.
 */
import type { PortDevice } from './bus.ts';
import type { TimerClient, VirtualClock } from './clock.ts';
import type { IrqLine } from './irq.ts';

export const PIT_PORT = 0x40;
export const PIT_SPEAKER_PORT = 0x61;
export const PIT_IRQ = 0;
export const PIT_HZ = 1193182;

const CHANNELS = 3;
/** A guest can't ask for more than 5,000 interrupts a second, as under KVM (min_timer_period_us). */
const MIN_PERIOD_TICKS = Math.ceil((200e3 * PIT_HZ) / 1e9);

const ACCESS_LOW = 1;
const ACCESS_HIGH = 2;
const ACCESS_BOTH = 3;

export class Pit8254 implements PortDevice, TimerClient {
  // One element a channel.
  readonly mode = new Uint8Array(CHANNELS);
  readonly access = new Uint8Array(CHANNELS).fill(ACCESS_BOTH);
  readonly bcd = new Uint8Array(CHANNELS);
  /** What was loaded, 1 to 65536; counting needs `loaded`. */
  readonly reload = new Int32Array(CHANNELS).fill(65536);
  readonly loaded = new Uint8Array(CHANNELS);
  /** Virtual time at which counting began. */
  readonly startNs = new Float64Array(CHANNELS);
  readonly gate = new Uint8Array([1, 1, 0]);
  /** Ticks at which a closed gate has stopped the count; -1 while it runs. */
  readonly stoppedAt = new Float64Array(CHANNELS).fill(-1);
  readonly lowWritten = new Int32Array(CHANNELS).fill(-1);
  readonly highIsNext = new Uint8Array(CHANNELS);
  /** Latched values, -1 if there is none. */
  readonly latchedCount = new Int32Array(CHANNELS).fill(-1);
  readonly latchedStatus = new Int32Array(CHANNELS).fill(-1);
  speaker = 0;
  /** Periods of channel 0 until its next interrupt, counted from `startNs`. */
  nextPeriod = 0;
  private readonly clock: VirtualClock;
  private readonly irq: IrqLine;
  private readonly timer: number;

  constructor(clock: VirtualClock, irq: IrqLine) {
    this.clock = clock;
    this.irq = irq;
    this.timer = clock.addTimer(this);
  }

  portRead(port: number): number {
    if (port === PIT_SPEAKER_PORT) return this.readSpeaker();
    const channel = port & 3;
    return channel === 3 ? 0xff : this.readChannel(channel);
  }

  portWrite(port: number, _bytes: number, value: number): void {
    if (port === PIT_SPEAKER_PORT) {
      this.speaker = value & 3;
      this.setGate(2, value & 1);
    } else if ((port & 3) === 3) {
      this.writeControl(value);
    } else {
      this.writeChannel(port & 3, value);
    }
  }

  /** Channel 0's output rises. */
  onTimer(): void {
    this.irq.strobe();
    if (this.mode[0] === 2 || this.mode[0] === 3) this.scheduleNextPeriod();
  }

  /** The output pin. */
  output(channel: number): boolean {
    const count = this.reload[channel];
    if (this.loaded[channel] === 0) return this.mode[channel] !== 0;
    const ticks = this.ticks(channel);
    switch (this.mode[channel]) {
      case 0:
      case 1:
        return ticks >= count;
      case 2:
        return ticks % count !== count - 1;
      case 3:
        return ticks % count < (count + 1) >> 1;
      default:
        return ticks !== count;
    }
  }

  private readSpeaker(): number {
    // Bit 4 is the DRAM refresh, which toggles every 15 us.
    const refresh = Math.floor(this.clock.now / 15085) & 1;
    return this.speaker | (refresh << 4) | (this.output(2) ? 0x20 : 0);
  }

  private writeControl(value: number): void {
    const channel = value >> 6;
    if (channel === 3) {
      for (let i = 0; i < CHANNELS; i++) {
        if (!(value & (2 << i))) continue;
        if (!(value & 0x20)) this.latchCount(i);
        if (!(value & 0x10)) this.latchStatus(i);
      }
      return;
    }
    const access = (value >> 4) & 3;
    if (access === 0) {
      this.latchCount(channel);
      return;
    }
    const mode = (value >> 1) & 7;
    this.mode[channel] = mode > 5 ? mode - 4 : mode;
    this.access[channel] = access;
    this.bcd[channel] = value & 1;
    this.loaded[channel] = 0;
    this.lowWritten[channel] = -1;
    this.highIsNext[channel] = 0;
    this.latchedCount[channel] = -1;
    this.latchedStatus[channel] = -1;
    if (channel === 0) {
      this.clock.cancel(this.timer);
      this.irq.set(this.mode[0] !== 0);
    }
  }

  private writeChannel(channel: number, value: number): void {
    switch (this.access[channel]) {
      case ACCESS_LOW:
        this.load(channel, value);
        break;
      case ACCESS_HIGH:
        this.load(channel, value << 8);
        break;
      default:
        if (this.lowWritten[channel] < 0) {
          this.lowWritten[channel] = value;
        } else {
          this.load(channel, this.lowWritten[channel] | (value << 8));
          this.lowWritten[channel] = -1;
        }
    }
  }

  private load(channel: number, raw: number): void {
    const value = this.bcd[channel] ? fromBcd(raw) : raw;
    this.reload[channel] = value === 0 ? (this.bcd[channel] ? 10000 : 65536) : value;
    this.loaded[channel] = 1;
    this.startNs[channel] = this.clock.now;
    this.stoppedAt[channel] = this.gate[channel] ? -1 : 0;
    if (channel !== 0) return;
    this.nextPeriod = 0;
    this.irq.set(this.mode[0] !== 0);
    // Modes 1 and 5 wait for an edge of the gate, which is always high here.
    if (this.mode[0] === 1 || this.mode[0] === 5) this.clock.cancel(this.timer);
    else this.scheduleNextPeriod();
  }

  private scheduleNextPeriod(): void {
    const count = this.reload[0];
    this.nextPeriod += Math.max(1, Math.ceil(MIN_PERIOD_TICKS / count));
    const periods = this.mode[0] === 2 || this.mode[0] === 3 ? this.nextPeriod : 1;
    this.clock.schedule(this.timer, this.startNs[0] + Math.ceil((periods * count * 1e9) / PIT_HZ));
  }

  private setGate(channel: number, gate: number): void {
    const was = this.gate[channel];
    this.gate[channel] = gate;
    if (was === gate || this.loaded[channel] === 0) return;
    const mode = this.mode[channel];
    if (!gate) {
      // A gate that closes stops modes 0, 2, 3 and 4; the one-shots of 1 and 5 run on.
      if (mode !== 1 && mode !== 5) this.stoppedAt[channel] = this.ticks(channel);
    } else if (mode === 0 || mode === 4) {
      this.startNs[channel] = this.clock.now - Math.ceil((this.stoppedAt[channel] * 1e9) / PIT_HZ);
      this.stoppedAt[channel] = -1;
    } else {
      this.startNs[channel] = this.clock.now;
      this.stoppedAt[channel] = -1;
    }
  }

  private latchCount(channel: number): void {
    if (this.latchedCount[channel] < 0) this.latchedCount[channel] = this.count(channel);
  }

  private latchStatus(channel: number): void {
    if (this.latchedStatus[channel] >= 0) return;
    this.latchedStatus[channel] =
      (this.output(channel) ? 0x80 : 0) |
      (this.loaded[channel] ? 0 : 0x40) |
      (this.access[channel] << 4) |
      (this.mode[channel] << 1) |
      this.bcd[channel];
  }

  private readChannel(channel: number): number {
    if (this.latchedStatus[channel] >= 0) {
      const status = this.latchedStatus[channel];
      this.latchedStatus[channel] = -1;
      return status;
    }
    const latched = this.latchedCount[channel];
    const count = latched >= 0 ? latched : this.count(channel);
    const access = this.access[channel];
    const high = access === ACCESS_HIGH || (access === ACCESS_BOTH && this.highIsNext[channel] === 1);
    if (access === ACCESS_BOTH) this.highIsNext[channel] ^= 1;
    if (access !== ACCESS_BOTH || high) this.latchedCount[channel] = -1;
    return high ? count >> 8 : count & 0xff;
  }

  /** The counter's 16 bits, in the number system the channel counts in. */
  private count(channel: number): number {
    const reload = this.reload[channel];
    const ticks = this.loaded[channel] ? this.ticks(channel) : 0;
    let count: number;
    if (this.mode[channel] === 2) count = reload - (ticks % reload);
    else if (this.mode[channel] === 3) count = reload - ((2 * ticks) % reload);
    else count = reload - ticks;
    return this.bcd[channel] ? toBcd(((count % 10000) + 10000) % 10000) : ((count % 65536) + 65536) % 65536;
  }

  private ticks(channel: number): number {
    if (this.stoppedAt[channel] >= 0) return this.stoppedAt[channel];
    return Math.floor(((this.clock.now - this.startNs[channel]) * PIT_HZ) / 1e9);
  }
}

function fromBcd(value: number): number {
  return (value >> 12) * 1000 + ((value >> 8) & 15) * 100 + ((value >> 4) & 15) * 10 + (value & 15);
}

function toBcd(value: number): number {
  const digit = (unit: number): number => Math.floor(value / unit) % 10;
  return (digit(1000) << 12) | (digit(100) << 8) | (digit(10) << 4) | digit(1);
}
