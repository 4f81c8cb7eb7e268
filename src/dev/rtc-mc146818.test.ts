import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualClock } from './clock.ts';
import { IrqLine, NO_IRQ } from './irq.ts';
import { civilOf, daysOf, RtcMc146818 } from './rtc-mc146818.ts';

/** 2026-02-28 23:59:58 UTC, a Saturday. */
const EPOCH_S = Date.UTC(2026, 1, 28, 23, 59, 58) / 1000;

describe('the clock', () => {
  let clock: VirtualClock;
  let irq: IrqLine;
  let rtc: RtcMc146818;
  const get = (index: number): number => {
    rtc.portWrite(0x70, 1, index);
    return rtc.portRead(0x71);
  };
  const set = (index: number, value: number): void => {
    rtc.portWrite(0x70, 1, index);
    rtc.portWrite(0x71, 1, value);
  };
  const time = (): number[] => [0x32, 9, 8, 7, 4, 2, 0].map(get);

  beforeEach(() => {
    clock = new VirtualClock();
    irq = new IrqLine(NO_IRQ, 8);
    rtc = new RtcMc146818(clock, irq, EPOCH_S);
  });

  it('shows the time in BCD, and counts on into the next month', () => {
    expect(time()).toEqual([0x20, 0x26, 0x02, 0x28, 0x23, 0x59, 0x58]);
    expect(get(6)).toBe(7);
    clock.advanceTo(2e9);
    expect(time()).toEqual([0x20, 0x26, 0x03, 0x01, 0x00, 0x00, 0x00]);
    expect(get(6)).toBe(1);
  });

  it('shows it in binary and by twelve hours, if asked to', () => {
    set(11, 0x04);
    expect(time()).toEqual([20, 26, 2, 28, 0x80 | 11, 59, 58]);
    clock.advanceTo(2e9);
    expect(get(4)).toBe(12);
  });

  it('says that an update is in progress just before a second ends', () => {
    expect(get(10) & 0x80).toBe(0);
    clock.advanceTo(1e9 - 100e3);
    expect(get(10) & 0x80).toBe(0x80);
    clock.advanceTo(1e9);
    expect(get(10) & 0x80).toBe(0);
  });

  it('can be set', () => {
    set(11, 0x82);
    for (const [index, value] of [
      [0, 0x30],
      [2, 0x15],
      [4, 0x08],
      [7, 0x29],
      [8, 0x02],
      [9, 0x24],
    ]) {
      set(index, value);
    }
    clock.advanceTo(5e9);
    expect(get(0)).toBe(0x30);
    set(11, 0x02);
    clock.advanceTo(clock.now + 86400e9);
    expect(time()).toEqual([0x20, 0x24, 0x03, 0x01, 0x08, 0x15, 0x30]);
  });

  it('interrupts at the end of each second, if asked to', () => {
    clock.advanceTo(0.3e9);
    set(11, 0x12);
    clock.advanceTo(0.99e9);
    expect(irq.level).toBe(false);
    clock.advanceTo(1e9);
    expect(irq.level).toBe(true);
    expect(get(12)).toBe(0x90);
    expect([irq.level, get(12)]).toEqual([false, 0]);
  });

  it('raises the update flag without an interrupt, too', () => {
    clock.advanceTo(1e9);
    expect([irq.level, get(12), get(12)]).toEqual([false, 0x10, 0]);
  });

  it('interrupts periodically at the chosen rate', () => {
    set(11, 0x42);
    let count = 0;
    while (clock.nextDeadline <= 1e9) {
      clock.advanceTo(clock.nextDeadline);
      expect(irq.level).toBe(true);
      expect(get(12) & 0xc0).toBe(0xc0);
      count++;
    }
    expect(count).toBe(1024);
  });

  it('rings the alarm, with wildcards', () => {
    set(1, 0x05);
    set(3, 0xc0);
    set(5, 0xff);
    set(11, 0x22);
    clock.advanceTo(6.9e9);
    expect(irq.level).toBe(false);
    clock.advanceTo(7e9);
    expect(irq.level).toBe(true);
    expect(get(12) & 0xa0).toBe(0xa0);
  });

  it('remembers 100 bytes and more', () => {
    set(0x0f, 0x0a);
    set(0x7f, 0x55);
    expect([get(0x0f), get(0x7f), get(13)]).toEqual([0x0a, 0x55, 0x80]);
  });
});

describe('a date', () => {
  it('is what the rest of the world says it is', () => {
    fc.assert(
      fc.property(fc.integer({ min: -100000, max: 200000 }), (days) => {
        const date = new Date(days * 86400e3);
        const civil = { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate() };
        expect(civilOf(days)).toEqual(civil);
        expect(daysOf(civil.year, civil.month, civil.day)).toBe(days);
      }),
    );
  });
});
