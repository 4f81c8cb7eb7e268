import { beforeEach, describe, expect, it } from 'vitest';
import { ApicBus } from './apic-bus.ts';
import { VirtualClock } from './clock.ts';
import { IoApic } from './ioapic.ts';
import { LocalApic } from './local-apic.ts';
import { Tsc } from './tsc.ts';

let clock: VirtualClock;
let tsc: Tsc;
let bus: ApicBus;
let ioapic: IoApic;
let pic: { output: boolean; acknowledge: () => number };
let apics: LocalApic[];

const read = (reg: number, apic = apics[0]): number => apic.mmioRead(reg, 4) >>> 0;
const write = (reg: number, value: number, apic = apics[0]): void => apic.mmioWrite(reg, 4, value);
const redirect = (pin: number, low: number, high = 0): void => {
  for (const [index, value] of [
    [0x11 + pin * 2, high],
    [0x10 + pin * 2, low],
  ]) {
    ioapic.mmioWrite(0, 4, index);
    ioapic.mmioWrite(0x10, 4, value);
  }
};
const entryOf = (pin: number): number => {
  ioapic.mmioWrite(0, 4, 0x10 + pin * 2);
  return ioapic.mmioRead(0x10, 4);
};
const takeAll = (apic = apics[0]): number[] => {
  const vectors: number[] = [];
  for (let v = apic.acknowledge(); v >= 0; v = apic.acknowledge()) {
    vectors.push(v);
    write(0xb0, 0, apic);
  }
  return vectors;
};

beforeEach(() => {
  clock = new VirtualClock();
  tsc = new Tsc(clock, 2e6);
  bus = new ApicBus();
  pic = { output: false, acknowledge: () => 0x20 };
  apics = [0, 1, 2].map((id) => new LocalApic({ id, clock, tsc, bus, boot: id === 0, ...(id === 0 ? { pic } : {}) }));
  ioapic = new IoApic(bus, 3);
  for (const apic of apics) write(0xf0, 0x1ff, apic);
});

describe('a local APIC', () => {
  it('has its number, its version, and six local vectors', () => {
    expect([read(0x20, apics[2]), read(0x30)]).toEqual([0x02000000, 0x50014]);
    expect(apics.map((apic) => apic.baseLo >>> 0)).toEqual([0xfee00900, 0xfee00800, 0xfee00800]);
  });

  it('answers on its page only', () => {
    expect([0xfee00000, 0xfee00fff, 0xfee01000].map((gpa) => apics[0].covers(gpa))).toEqual([true, true, false]);
    expect(apics[0].writeMsr(0x1b, 0xfed00900 | 0, 0)).toBe(true);
    expect([apics[0].covers(0xfee00000), apics[0].covers(0xfed00000)]).toEqual([false, true]);
  });

  it('takes the highest vector first, and no lower one while it is in service', () => {
    for (const vector of [0x31, 0x52, 0x51]) apics[0].accept(0, vector, false);
    expect(apics[0].acknowledge()).toBe(0x52);
    expect(apics[0].interruptPending()).toBe(false);
    expect([read(0x120) >>> 18, read(0x220), read(0x210)]).toEqual([1, 1 << 17, 1 << 17]);
    apics[0].accept(0, 0x60, false);
    expect(apics[0].acknowledge()).toBe(0x60);
    write(0xb0, 0);
    expect(apics[0].interruptPending()).toBe(false);
    write(0xb0, 0);
    expect(takeAll()).toEqual([0x51, 0x31]);
  });

  it('holds back what is below the task priority, which CR8 shows', () => {
    write(0x80, 0x45);
    apics[0].accept(0, 0x4f, false);
    expect([apics[0].interruptPending(), read(0xa0), apics[0].cr8()]).toEqual([false, 0x45, 4]);
    apics[0].setCr8(3);
    expect([apics[0].acknowledge(), read(0x80), read(0xa0)]).toEqual([0x4f, 0x30, 0x40]);
  });

  it('takes nothing while it is switched off by software, and masks its local vectors', () => {
    write(0x320, 0x40);
    write(0xf0, 0xff);
    expect([apics[0].accept(0, 0x50, false), read(0x320)]).toEqual([false, 0x10040]);
    write(0x320, 0x41);
    expect(read(0x320)).toBe(0x10041);
  });

  it('reports vectors below 16 as errors', () => {
    write(0x370, 0xfe);
    apics[0].accept(0, 5, false);
    expect([apics[0].acknowledge(), read(0x280)]).toEqual([0xfe, 0]);
    write(0x280, 0);
    expect(read(0x280)).toBe(0x40);
    write(0x300, 0x40003);
    write(0x280, 0);
    expect(read(0x280)).toBe(0x20);
  });

  it('passes the external interrupts through LINT0 until that is masked', () => {
    pic.output = true;
    expect([apics[0].interruptPending(), apics[1].interruptPending()]).toEqual([true, false]);
    expect(apics[0].acknowledge()).toBe(0x20);
    write(0x350, 0x10700);
    expect(apics[0].interruptPending()).toBe(false);
  });

  it('passes them as well when the APIC is off altogether', () => {
    pic.output = true;
    write(0x350, 0x10700);
    apics[0].writeMsr(0x1b, 0xfee00100 | 0, 0);
    expect([apics[0].interruptPending(), apics[0].covers(0xfee00000)]).toEqual([true, false]);
  });

  it('makes an NMI or a vector of its pins', () => {
    write(0x360, 0x400);
    apics[0].setPin(1, true);
    expect(apics[0].nmiPending).toBe(true);
    write(0x350, 0x44);
    apics[0].setPin(0, true);
    expect(apics[0].acknowledge()).toBe(0x44);
  });

  it('ignores accesses that are not whole registers', () => {
    write(0x80, 0x30);
    apics[0].mmioWrite(0x80, 1, 0x50);
    apics[0].mmioWrite(0x84, 4, 0x50);
    expect([read(0x80), apics[0].mmioRead(0x32, 1)]).toEqual([0x30, 0x05]);
  });
});

describe('interrupts between processors', () => {
  it('go to one by its number', () => {
    write(0x310, 2 << 24);
    write(0x300, 0x4055);
    expect(apics.map((apic) => takeAll(apic))).toEqual([[], [], [0x55]]);
  });

  // biome-ignore format: a table
  it.each([
    ['itself',             0x44055, [[0x55], [], []]],
    ['all',                0x84055, [[0x55], [0x55], [0x55]]],
    ['all but itself',     0xc4055, [[], [0x55], [0x55]]],
  ])('go to %s by a shorthand', (_, icr, taken) => {
    write(0x300, icr);
    expect(apics.map((apic) => takeAll(apic))).toEqual(taken);
  });

  it('go by the number that the guest gave it, two of the same too, and INIT keeps it', () => {
    apics[1].mmioWrite(0x20, 4, 2 << 24);
    write(0x310, 2 << 24);
    write(0x300, 0x4055);
    write(0x310, 1 << 24);
    write(0x300, 0x4056);
    expect(apics.map((apic) => takeAll(apic))).toEqual([[], [0x55], [0x55]]);
    apics[1].initialize();
    expect(apics[1].mmioRead(0x20, 4)).toBe(2 << 24);
    apics[1].reset();
    expect(apics[1].mmioRead(0x20, 4)).toBe(1 << 24);
  });

  it('go to everybody by the number 255', () => {
    write(0x310, 0xff << 24);
    write(0x300, 0x4055);
    expect(apics.map((apic) => takeAll(apic))).toEqual([[0x55], [0x55], [0x55]]);
  });

  it('go by logical names, flat or in clusters', () => {
    for (const apic of apics) write(0xd0, (1 << apic.id) << 24, apic);
    write(0x310, 0x06 << 24);
    write(0x300, 0x4855);
    expect(apics.map((apic) => takeAll(apic))).toEqual([[], [0x55], [0x55]]);
    for (const apic of apics) {
      write(0xe0, 0x0fffffff, apic);
      write(0xd0, ((apic.id === 0 ? 0x10 : 0x20) | (1 << apic.id)) << 24, apic);
    }
    write(0x310, 0x2f << 24);
    write(0x300, 0x4856);
    expect(apics.map((apic) => takeAll(apic))).toEqual([[], [0x56], [0x56]]);
  });

  it('go to who does the least important work', () => {
    for (const apic of apics) write(0xd0, 0xff << 24, apic);
    write(0x80, 0x20, apics[0]);
    write(0x80, 0x10, apics[1]);
    write(0x80, 0x20, apics[2]);
    write(0x310, 0xff << 24);
    write(0x300, 0x4955);
    expect(apics.map((apic) => takeAll(apic))).toEqual([[], [0x55], []]);
  });

  it('carry NMI, INIT and the start-up page', () => {
    write(0x310, 1 << 24);
    write(0x300, 0x4400);
    expect([apics[1].nmiPending, apics[0].nmiPending]).toEqual([true, false]);
    write(0x300, 0xc500);
    expect(apics[1].initPending).toBe(true);
    apics[1].initPending = false;
    write(0x300, 0x8500);
    expect(apics[1].initPending).toBe(false);
    write(0x300, 0x4609);
    expect(apics[1].sipiVector).toBe(9);
  });
});

describe('the APIC timer', () => {
  it('ends once, or again and again', () => {
    write(0x3e0, 0x0b);
    write(0x320, 0x40);
    write(0x380, 500000);
    clock.advanceTo(499999);
    expect([apics[0].interruptPending(), read(0x390)]).toEqual([false, 1]);
    clock.advanceTo(500000);
    expect([takeAll(), read(0x390)]).toEqual([[0x40], 0]);
    write(0x320, 0x20041);
    write(0x380, 300000);
    for (let i = 0; i < 3; i++) {
      clock.advanceTo(clock.now + 300000);
      expect(takeAll()).toEqual([0x41]);
    }
  });

  // biome-ignore format: a table
  it.each([
    [0x0, 2], [0x1, 4], [0x2, 8], [0x3, 16], [0x8, 32], [0x9, 64], [0xa, 128], [0xb, 1],
  ])('divides by what %i says: %i', (code, by) => {
    write(0x3e0, code);
    write(0x380, 1000);
    expect(clock.nextDeadline).toBe(1000 * by);
  });

  it('keeps its count when the divider changes', () => {
    write(0x3e0, 0x0b);
    write(0x380, 1000);
    clock.advanceTo(400);
    write(0x3e0, 0x00);
    expect([read(0x390), clock.nextDeadline]).toEqual([600, 1600]);
  });

  it('is stopped by a count of 0', () => {
    write(0x380, 1000);
    write(0x380, 0);
    expect(clock.nextDeadline).toBe(Infinity);
  });

  it('does not come more than 5,000 times a second', () => {
    write(0x3e0, 0x0b);
    write(0x320, 0x20040);
    write(0x380, 1);
    expect(clock.nextDeadline).toBe(200000);
  });

  it('waits for the time stamp counter', () => {
    write(0x320, 0x40040);
    expect(apics[0].writeMsr(0x6e0, 4000, 0)).toBe(true);
    expect([apics[0].readMsr(0x6e0), apics[0].msrLo]).toEqual([true, 4000]);
    clock.advanceTo(1999);
    expect(apics[0].interruptPending()).toBe(false);
    clock.advanceTo(2000);
    expect(takeAll()).toEqual([0x40]);
    apics[0].readMsr(0x6e0);
    expect(apics[0].msrLo).toBe(0);
  });

  it('fires a deadline in the past at once, and forgets one of 0', () => {
    write(0x320, 0x40040);
    clock.advanceTo(5000);
    apics[0].writeMsr(0x6e0, 1, 0);
    expect(takeAll()).toEqual([0x40]);
    apics[0].writeMsr(0x6e0, 50000, 0);
    apics[0].writeMsr(0x6e0, 0, 0);
    expect(clock.nextDeadline).toBe(Infinity);
  });

  it('ignores a deadline in the other modes, and a count in this one', () => {
    apics[0].writeMsr(0x6e0, 50000, 0);
    expect(clock.nextDeadline).toBe(Infinity);
    write(0x320, 0x40040);
    write(0x380, 1000);
    expect([clock.nextDeadline, read(0x380)]).toEqual([Infinity, 0]);
  });

  it('moves the deadline when the counter is written', () => {
    write(0x320, 0x40040);
    apics[0].writeMsr(0x6e0, 4000, 0);
    tsc.write(2000, 0);
    apics[0].timer.rearm();
    expect(clock.nextDeadline).toBe(1000);
  });
});

describe('x2APIC mode', () => {
  const enter = (apic: LocalApic): boolean => apic.writeMsr(0x1b, 0xfee00c00 | (apic.id === 0 ? 0x100 : 0) | 0, 0);

  it('needs the mode', () => {
    expect([apics[0].readMsr(0x802), apics[0].writeMsr(0x808, 0, 0)]).toEqual([false, false]);
    expect(enter(apics[0])).toBe(true);
    expect([apics[0].readMsr(0x802), apics[0].covers(0xfee00000)]).toEqual([true, false]);
  });

  it('is refused by a processor that does not announce it', () => {
    const without = new LocalApic({ id: 3, clock, tsc, bus, boot: false, x2apic: false });
    expect([enter(without), without.isX2(), without.writeMsr(0x1b, 0xfee00800 | 0, 0)]).toEqual([false, false, true]);
  });

  it('names processors by 32 bits, and by clusters of 16', () => {
    enter(apics[2]);
    expect([apics[2].readMsr(0x802), apics[2].msrLo, apics[2].readMsr(0x80d), apics[2].msrLo]).toEqual([
      true,
      2,
      true,
      4,
    ]);
  });

  it('sends by one write, to a number, a cluster, all, or itself', () => {
    for (const apic of apics) enter(apic);
    const eoi = (apic: LocalApic): number[] => {
      const vectors: number[] = [];
      for (let v = apic.acknowledge(); v >= 0; v = apic.acknowledge()) {
        vectors.push(v);
        apic.writeMsr(0x80b, 0, 0);
      }
      return vectors;
    };
    apics[0].writeMsr(0x830, 0x4055, 1);
    expect(apics.map(eoi)).toEqual([[], [0x55], []]);
    apics[0].writeMsr(0x830, 0x4856, 0x6);
    expect(apics.map(eoi)).toEqual([[], [0x56], [0x56]]);
    apics[0].writeMsr(0x830, 0x4057, -1);
    expect(apics.map(eoi)).toEqual([[0x57], [0x57], [0x57]]);
    apics[0].writeMsr(0x83f, 0x58, 0);
    expect(apics.map(eoi)).toEqual([[0x58], [], []]);
    apics[0].readMsr(0x830);
    expect([apics[0].msrLo, apics[0].msrHi]).toEqual([0x4057, -1]);
  });

  it('refuses what the registers do not take', () => {
    enter(apics[0]);
    const refused = (msr: number, lo: number, hi: number): boolean => !apics[0].writeMsr(msr, lo, hi);
    // biome-ignore format: a table
    expect([
      refused(0x802, 0, 0), refused(0x803, 0, 0), refused(0x80a, 0, 0), refused(0x80d, 0, 0), refused(0x80e, 0, 0),
      refused(0x808, 0x100, 0), refused(0x808, 0, 1), refused(0x80b, 1, 0), refused(0x828, 1, 0), refused(0x831, 0, 0),
      refused(0x839, 0, 0), refused(0x82f, 0, 0), refused(0x83f, 0x100, 0), refused(0x810, 0, 0), refused(0x8ff, 0, 0),
    ]).toEqual(Array.from({ length: 15 }, () => true));
    expect([0x80b, 0x80e, 0x831, 0x83f, 0x82f, 0x8ff].map((msr) => apics[0].readMsr(msr))).not.toContain(true);
  });

  it('is entered and left only by the legal ways', () => {
    const base = (bits: number): boolean => apics[1].writeMsr(0x1b, 0xfee00000 | bits | 0, 0);
    expect(base(0x400)).toBe(false);
    expect(base(0x000)).toBe(true);
    expect(base(0xc00)).toBe(false);
    expect([base(0x800), base(0xc00), base(0x800), base(0x000)]).toEqual([true, true, false, true]);
    expect([apics[1].writeMsr(0x1b, 0xfee00801 | 0, 0), apics[1].writeMsr(0x1b, 0x800, 0x100)]).toEqual([false, false]);
  });

  it('starts anew when the APIC is switched on again', () => {
    write(0x80, 0x50);
    apics[0].writeMsr(0x1b, 0xfee00100 | 0, 0);
    apics[0].writeMsr(0x1b, 0xfee00900 | 0, 0);
    expect([read(0x80), read(0xf0), read(0x20)]).toEqual([0, 0xff, 0]);
  });
});

describe('the IOAPIC', () => {
  it('has 24 masked pins, a number and a version', () => {
    ioapic.mmioWrite(0, 4, 1);
    expect(ioapic.mmioRead(0x10, 4)).toBe(0x170011);
    ioapic.mmioWrite(0, 4, 0);
    expect(ioapic.mmioRead(0x10, 4)).toBe(0x03000000);
    expect(Array.from({ length: 24 }, (_, pin) => entryOf(pin))).toEqual(Array.from({ length: 24 }, () => 0x10000));
  });

  it('delivers an edge once, and loses it behind the mask', () => {
    redirect(4, 0x10034);
    ioapic.setPin(4, true);
    redirect(4, 0x34);
    expect(takeAll()).toEqual([]);
    ioapic.setPin(4, false);
    ioapic.setPin(4, true);
    ioapic.setPin(4, true);
    expect(takeAll()).toEqual([0x34]);
  });

  it('delivers a level until it ends, once per end of interrupt', () => {
    redirect(9, 0x8039);
    ioapic.setPin(9, true);
    expect(entryOf(9) & 0x4000).toBe(0x4000);
    expect(apics[0].acknowledge()).toBe(0x39);
    expect(read(0x190)).toBe(1 << 25);
    write(0xb0, 0);
    expect(apics[0].acknowledge()).toBe(0x39);
    ioapic.setPin(9, false);
    write(0xb0, 0);
    expect([apics[0].acknowledge(), entryOf(9) & 0x4000]).toEqual([-1, 0]);
  });

  it('remembers a level behind the mask', () => {
    ioapic.setPin(9, true);
    redirect(9, 0x8039);
    expect(apics[0].acknowledge()).toBe(0x39);
  });

  it('sends where the entry says', () => {
    redirect(1, 0x31, 2 << 24);
    ioapic.setPin(1, true);
    expect(apics.map((apic) => takeAll(apic))).toEqual([[], [], [0x31]]);
    redirect(2, 0x400, 1 << 24);
    ioapic.setPin(2, true);
    expect(apics.map((apic) => apic.nmiPending)).toEqual([false, true, false]);
  });

  it('reaches processors in x2APIC mode, too', () => {
    for (const apic of apics) apic.writeMsr(0x1b, apic.baseLo | 0x400, 0);
    redirect(1, 0x831, 0x02 << 24);
    ioapic.setPin(1, true);
    expect(apics.map((apic) => apic.acknowledge())).toEqual([-1, 0x31, -1]);
  });

  it('keeps the read-only bits of an entry', () => {
    redirect(5, 0xffffffff | 0, -1);
    expect(entryOf(5) & 0x5000).toBe(0);
  });
});
