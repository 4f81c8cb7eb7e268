/**
 * The MC146818 clock with its CMOS memory. Claims ports 0x70 (index) and 0x71 (data), 1 byte wide; interrupts on IRQ 8.
 * The time of day is a given epoch plus virtual time; the guest may set it.
 */
import type { PortDevice } from './bus.ts';
import { NS_PER_S, type TimerClient, type VirtualClock } from './clock.ts';
import type { IrqLine } from './irq.ts';

export const RTC_PORT = 0x70;
export const RTC_IRQ = 8;

const SECONDS = 0;
const SECONDS_ALARM = 1;
const MINUTES = 2;
const MINUTES_ALARM = 3;
const HOURS = 4;
const HOURS_ALARM = 5;
const DAY_OF_WEEK = 6;
const DAY_OF_MONTH = 7;
const MONTH = 8;
const YEAR = 9;
const REG_A = 10;
const REG_B = 11;
const REG_C = 12;
const REG_D = 13;
/** Where PCs keep the hundreds of the year; the FADT says so. */
export const RTC_CENTURY = 0x32;

const A_UIP = 0x80;
const B_SET = 0x80;
const B_PIE = 0x40;
const B_AIE = 0x20;
const B_UIE = 0x10;
const B_BINARY = 0x04;
const B_24H = 0x02;
const C_IRQF = 0x80;
const C_PF = 0x40;
const C_AF = 0x20;
const C_UF = 0x10;
const D_VALID = 0x80;
/** The update-in-progress bit rises this long before the second ends. */
const UIP_NS = 244e3;

export class RtcMc146818 implements PortDevice, TimerClient {
  index = 0;
  readonly cmos = new Uint8Array(128);
  /** The time of day was `epochS` (seconds since 1970) at `sinceNs` of virtual time. */
  epochS: number;
  sinceNs = 0;
  /** Seconds at the last look at register C: an update since then has raised its flag. */
  flaggedS = 0;
  private readonly clock: VirtualClock;
  private readonly irq: IrqLine;
  private readonly updateTimer: number;
  private readonly periodicTimer: number;

  /** `epochS`: the time of day at power-on, UTC, in seconds since 1970. */
  constructor(clock: VirtualClock, irq: IrqLine, epochS: number) {
    this.clock = clock;
    this.irq = irq;
    this.epochS = Math.floor(epochS);
    this.flaggedS = this.seconds();
    this.updateTimer = clock.addTimer(this);
    this.periodicTimer = clock.addTimer(this);
    this.cmos[REG_A] = 0x26;
    this.cmos[REG_B] = B_24H;
    this.cmos[REG_D] = D_VALID;
  }

  /** The RESET pin: interrupts go off. Time and memory stay. */
  reset(): void {
    this.cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE);
    this.cmos[REG_C] = 0;
    this.schedulePeriodic();
    this.scheduleUpdate();
    this.irq.set(false);
  }

  portRead(port: number): number {
    if ((port & 1) === 0) return 0xff;
    const index = this.index;
    if (index <= YEAR || index === RTC_CENTURY) {
      this.showTime();
      return this.cmos[index];
    }
    if (index === REG_A) return this.cmos[REG_A] | (this.isUpdating() ? A_UIP : 0);
    if (index === REG_C) return this.readFlags();
    return this.cmos[index];
  }

  portWrite(port: number, _bytes: number, value: number): void {
    if ((port & 1) === 0) {
      this.index = value & 0x7f; // bit 7 masks NMIs, which nothing here raises
      return;
    }
    const index = this.index;
    if (index === SECONDS_ALARM || index === MINUTES_ALARM || index === HOURS_ALARM) this.cmos[index] = value;
    else if (index <= YEAR || index === RTC_CENTURY) this.writeTime(index, value);
    else if (index === REG_A) this.writeRate(value);
    else if (index === REG_B) this.writeControl(value);
    else if (index !== REG_C && index !== REG_D) this.cmos[index] = value;
  }

  onTimer(timer: number): void {
    if (timer === this.periodicTimer) {
      this.cmos[REG_C] |= C_PF;
      this.schedulePeriodic();
    } else {
      this.noteUpdate();
      this.showTime();
      if (this.alarmMatches()) this.cmos[REG_C] |= C_AF;
      this.scheduleUpdate();
    }
    this.updateIrq();
  }

  private seconds(): number {
    return this.epochS + Math.floor((this.clock.now - this.sinceNs) / NS_PER_S);
  }

  private isUpdating(): boolean {
    if (this.cmos[REG_B] & B_SET) return false;
    return (this.clock.now - this.sinceNs) % NS_PER_S >= NS_PER_S - UIP_NS;
  }

  private readFlags(): number {
    this.noteUpdate();
    this.updateIrq();
    const flags = this.cmos[REG_C];
    this.cmos[REG_C] = 0;
    this.irq.set(false);
    return flags;
  }

  /** The update flag, if a second has ended since it was last looked at. */
  private noteUpdate(): void {
    if (this.cmos[REG_B] & B_SET) return;
    const seconds = this.seconds();
    if (seconds !== this.flaggedS) this.cmos[REG_C] |= C_UF;
    this.flaggedS = seconds;
  }

  private updateIrq(): void {
    const raised = (this.cmos[REG_C] & this.cmos[REG_B] & (C_PF | C_AF | C_UF)) !== 0;
    if (raised) this.cmos[REG_C] |= C_IRQF;
    this.irq.set(raised);
  }

  private writeRate(value: number): void {
    this.cmos[REG_A] = value & ~A_UIP;
    this.schedulePeriodic();
  }

  private writeControl(value: number): void {
    const was = this.cmos[REG_B];
    if (value & ~was & B_SET) this.showTime();
    // Setting the clock ends its update interrupts.
    this.cmos[REG_B] = value & B_SET ? value & ~B_UIE : value;
    if (was & ~value & B_SET) this.takeTime();
    this.schedulePeriodic();
    this.scheduleUpdate();
    this.updateIrq();
  }

  private schedulePeriodic(): void {
    let rate = this.cmos[REG_A] & 15;
    if (!(this.cmos[REG_B] & B_PIE) || rate === 0) {
      this.clock.cancel(this.periodicTimer);
      return;
    }
    if (rate < 3) rate += 7;
    // Aligned to the divider's chain, so that switching it on and off keeps its phase.
    const ticks = 1 << (rate - 1);
    const passed = Math.floor(((this.clock.now - this.sinceNs) * 32768) / NS_PER_S);
    const next = (Math.floor(passed / ticks) + 1) * ticks;
    this.clock.schedule(this.periodicTimer, this.sinceNs + Math.ceil((next * NS_PER_S) / 32768));
  }

  private scheduleUpdate(): void {
    const b = this.cmos[REG_B];
    if (!(b & (B_UIE | B_AIE)) || b & B_SET) this.clock.cancel(this.updateTimer);
    else this.clock.schedule(this.updateTimer, this.sinceNs + (this.seconds() - this.epochS + 1) * NS_PER_S);
  }

  private alarmMatches(): boolean {
    // The two highest bits set: any value.
    const matches = (alarm: number): boolean =>
      (this.cmos[alarm] & 0xc0) === 0xc0 || this.cmos[alarm] === this.cmos[alarm - 1];
    return matches(SECONDS_ALARM) && matches(MINUTES_ALARM) && matches(HOURS_ALARM);
  }

  private writeTime(index: number, value: number): void {
    this.showTime();
    this.cmos[index] = value;
    if (!(this.cmos[REG_B] & B_SET)) this.takeTime();
  }

  /** Brings the time registers up to date, unless the guest is setting them. */
  private showTime(): void {
    if (this.cmos[REG_B] & B_SET) return;
    const seconds = this.seconds();
    const days = Math.floor(seconds / 86400);
    const date = civilOf(days);
    const hours = Math.floor(seconds / 3600) - days * 24;
    this.cmos[SECONDS] = this.encode(((seconds % 60) + 60) % 60);
    this.cmos[MINUTES] = this.encode(Math.floor(seconds / 60) - Math.floor(seconds / 3600) * 60);
    this.cmos[HOURS] = this.encodeHours(hours);
    this.cmos[DAY_OF_WEEK] = this.encode(((((days + 4) % 7) + 7) % 7) + 1);
    this.cmos[DAY_OF_MONTH] = this.encode(date.day);
    this.cmos[MONTH] = this.encode(date.month);
    this.cmos[YEAR] = this.encode(((date.year % 100) + 100) % 100);
    this.cmos[RTC_CENTURY] = this.encode(Math.floor(date.year / 100));
  }

  /** The registers are the time from now on. */
  private takeTime(): void {
    const decode = (index: number): number => this.decode(this.cmos[index]);
    const year = decode(RTC_CENTURY) * 100 + decode(YEAR);
    const days = daysOf(year, decode(MONTH), decode(DAY_OF_MONTH));
    this.epochS = days * 86400 + this.decodeHours(this.cmos[HOURS]) * 3600 + decode(MINUTES) * 60 + decode(SECONDS);
    this.sinceNs = this.clock.now;
    this.flaggedS = this.epochS;
    this.scheduleUpdate();
  }

  private encode(value: number): number {
    return this.cmos[REG_B] & B_BINARY ? value : (Math.floor(value / 10) << 4) | (value % 10);
  }

  private decode(value: number): number {
    return this.cmos[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
  }

  private encodeHours(hours: number): number {
    if (this.cmos[REG_B] & B_24H) return this.encode(hours);
    return this.encode(((hours + 11) % 12) + 1) | (hours >= 12 ? 0x80 : 0);
  }

  private decodeHours(value: number): number {
    if (this.cmos[REG_B] & B_24H) return this.decode(value);
    return (this.decode(value & 0x7f) % 12) + (value & 0x80 ? 12 : 0);
  }
}

/** Days since 1970-01-01 of a date; the year begins in March, so that the leap day comes last. */
export function daysOf(year: number, month: number, day: number): number {
  const y = month > 2 ? year : year - 1;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  return era * 146097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719468;
}

/** The date of a number of days since 1970-01-01. */
export function civilOf(days: number): { year: number; month: number; day: number } {
  const shifted = days + 719468;
  const era = Math.floor(shifted / 146097);
  const d = shifted - era * 146097;
  const y = Math.floor((d - Math.floor(d / 1460) + Math.floor(d / 36524) - Math.floor(d / 146096)) / 365);
  const dayOfYear = d - (365 * y + Math.floor(y / 4) - Math.floor(y / 100));
  const m = Math.floor((5 * dayOfYear + 2) / 153);
  const month = m < 10 ? m + 3 : m - 9;
  return { year: era * 400 + y + (month <= 2 ? 1 : 0), month, day: dayOfYear - Math.floor((153 * m + 2) / 5) + 1 };
}
