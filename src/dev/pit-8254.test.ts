import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualClock } from './clock.ts';
import { IrqLine } from './irq.ts';
import { PIT_HZ, Pit8254 } from './pit-8254.ts';

describe('the interval timer', () => {
  let clock: VirtualClock;
  let edges: number[];
  let pit: Pit8254;
  const outb = (port: number, value: number): void => pit.portWrite(port, 1, value);
  const inb = (port: number): number => pit.portRead(port);
  const ns = (ticks: number): number => Math.ceil((ticks * 1e9) / PIT_HZ);
  const program = (channel: number, mode: number, count: number): void => {
    outb(0x43, (channel << 6) | 0x30 | (mode << 1));
    outb(0x40 + channel, count & 0xff);
    outb(0x40 + channel, count >> 8);
  };
  const readCount = (channel: number): number => {
    outb(0x43, channel << 6);
    const low = inb(0x40 + channel);
    return low | (inb(0x40 + channel) << 8);
  };

  beforeEach(() => {
    clock = new VirtualClock();
    edges = [];
    const sink = {
      setPin: (_pin: number, level: boolean): void => {
        if (level) edges.push(clock.now);
      },
    };
    pit = new Pit8254(clock, new IrqLine(sink, 0));
  });

  it('interrupts periodically in modes 2 and 3', () => {
    for (const mode of [2, 3]) {
      edges.length = 0;
      clock.advanceTo(Math.ceil(clock.now));
      program(0, mode, 11932);
      const start = clock.now;
      edges.length = 0;
      clock.advanceTo(start + 50.5e6);
      expect(edges.map((at) => at - start)).toEqual([1, 2, 3, 4, 5].map((i) => ns(i * 11932)));
    }
  });

  it('interrupts once in mode 0', () => {
    program(0, 0, 1193);
    clock.advanceTo(1e9);
    expect(edges).toEqual([ns(1193)]);
  });

  it('takes a count of 0 as 65536', () => {
    program(0, 2, 0);
    edges.length = 0;
    clock.advanceTo(1e8);
    expect(edges[0]).toBe(ns(65536));
  });

  it('stops when it is given a new mode, until it gets a count', () => {
    program(0, 2, 1193);
    outb(0x43, 0x34);
    edges.length = 0;
    clock.advanceTo(1e9);
    expect(edges).toEqual([]);
  });

  it('does not interrupt more than 5,000 times a second', () => {
    program(0, 2, 1);
    edges.length = 0;
    clock.advanceTo(1e9);
    expect(edges.length).toBeGreaterThan(4900);
    expect(edges.length).toBeLessThanOrEqual(5000);
  });

  it('counts down, by ones in mode 0 and by twos in mode 3', () => {
    program(0, 0, 1000);
    program(1, 3, 1000);
    clock.advanceTo(ns(100));
    expect([readCount(0), readCount(1)]).toEqual([900, 800]);
  });

  it('counts on through zero in mode 0', () => {
    program(0, 0, 10);
    clock.advanceTo(ns(12));
    expect(readCount(0)).toBe(0xfffe);
  });

  it('holds a latched count until it has been read', () => {
    program(0, 2, 1000);
    clock.advanceTo(ns(100));
    outb(0x43, 0x00);
    clock.advanceTo(ns(300));
    outb(0x43, 0x00);
    expect([inb(0x40), inb(0x40)]).toEqual([900 & 0xff, 900 >> 8]);
    expect(readCount(0)).toBe(700);
  });

  it('reads back the status', () => {
    outb(0x43, 0xb6);
    outb(0x43, 0xe8);
    expect(inb(0x42)).toBe(0x80 | 0x40 | 0x36);
    outb(0x42, 10);
    outb(0x42, 0);
    outb(0x61, 1);
    outb(0x43, 0xe8);
    expect(inb(0x42)).toBe(0xb6);
  });

  it('takes single bytes as low or high', () => {
    outb(0x43, 0x14);
    outb(0x40, 200);
    clock.advanceTo(ns(50));
    expect(inb(0x40)).toBe(150);
    outb(0x43, 0x24);
    outb(0x40, 2);
    expect(inb(0x40)).toBe(2);
  });

  it('counts in decimal digits if it is to', () => {
    outb(0x43, 0x31);
    outb(0x40, 0x00);
    outb(0x40, 0x10);
    clock.advanceTo(ns(1));
    expect(readCount(0)).toBe(0x0999);
  });

  it('shows the end of channel 2 in port 0x61, as calibration loops use it', () => {
    outb(0x61, 0x01);
    program(2, 0, 11932);
    expect(inb(0x61) & 0x20).toBe(0);
    clock.advanceTo(ns(11931));
    expect(inb(0x61) & 0x20).toBe(0);
    clock.advanceTo(ns(11932));
    expect(inb(0x61) & 0x21).toBe(0x21);
  });

  it('stops channel 2 while its gate is closed', () => {
    outb(0x61, 0x01);
    program(2, 0, 1000);
    clock.advanceTo(ns(100));
    outb(0x61, 0x00);
    clock.advanceTo(ns(500));
    expect(readCount(2)).toBe(900);
    outb(0x61, 0x01);
    clock.advanceTo(clock.now + ns(50));
    expect(Math.abs(readCount(2) - 850)).toBeLessThanOrEqual(1);
  });

  it('toggles the refresh bit of port 0x61', () => {
    const seen = new Set<number>();
    for (let i = 0; i < 10; i++) {
      clock.advanceTo(i * 10000);
      seen.add(inb(0x61) & 0x10);
    }
    expect(seen.size).toBe(2);
  });
});
