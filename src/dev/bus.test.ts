import { beforeEach, describe, expect, it } from 'vitest';
import { MmioBus, PortBus } from './bus.ts';

class Probe {
  readonly log: string[] = [];
  portRead(port: number, bytes: number): number {
    this.log.push(`in ${port.toString(16)} ${bytes}`);
    return 0x11223340 + (port & 15);
  }
  portWrite(port: number, bytes: number, value: number): void {
    this.log.push(`out ${port.toString(16)} ${bytes} ${value.toString(16)}`);
  }
  mmioRead(offset: number, bytes: number): number {
    this.log.push(`load ${offset.toString(16)} ${bytes}`);
    return -2;
  }
  mmioWrite(offset: number, bytes: number, value: number): void {
    this.log.push(`store ${offset.toString(16)} ${bytes} ${value.toString(16)}`);
  }
}

describe('the port bus', () => {
  let bus: PortBus;
  let probe: Probe;
  beforeEach(() => {
    bus = new PortBus();
    probe = new Probe();
  });

  it('reads all ones where nobody is, and swallows writes', () => {
    expect([bus.read(0x80, 1), bus.read(0x80, 2), bus.read(0x80, 4)]).toEqual([0xff, 0xffff, 0xffffffff]);
    bus.write(0x80, 4, 0);
  });

  it('passes an access of the width that a device takes in one piece', () => {
    bus.claim(0xcf8, 8, probe, 4);
    expect(bus.read(0xcf8, 4)).toBe(0x11223348);
    bus.write(0xcfc, 2, 0x12345);
    expect(probe.log).toEqual(['in cf8 4', 'out cfc 2 2345']);
  });

  it('splits wider accesses, low port first', () => {
    bus.claim(0x60, 4, probe);
    expect(bus.read(0x60, 4)).toBe(0x43424140);
    bus.write(0x60, 4, 0xddccbbaa);
    expect(probe.log.slice(4)).toEqual(['out 60 1 aa', 'out 61 1 bb', 'out 62 1 cc', 'out 63 1 dd']);
  });

  it('splits an access that reaches over the edge of a device', () => {
    bus.claim(0x3fe, 2, probe, 4);
    expect(bus.read(0x3fe, 4)).toBe(0xffff334e);
  });

  it('wraps around at the end of the port space', () => {
    bus.claim(0, 1, probe);
    expect(bus.read(0xffff, 2)).toBe(0x40ff);
  });

  it('refuses a second owner', () => {
    bus.claim(0x20, 2, probe);
    expect(() => bus.claim(0x21, 1, probe)).toThrow('port 0x21 has two owners');
  });
});

describe('the memory-mapped bus', () => {
  it('finds the device and tells it the offset', () => {
    const bus = new MmioBus();
    const probe = new Probe();
    bus.claim(0xfec00000, 0x1000, probe);
    expect(bus.read(0xfec00010, 4)).toBe(0xfffffffe);
    expect(bus.read(0xfec00010, 1)).toBe(0xfe);
    bus.write(0xfec00ffc, 4, -1);
    expect(probe.log).toEqual(['load 10 4', 'load 10 1', 'store ffc 4 ffffffff']);
    expect([bus.covers(0xfec00fff), bus.covers(0xfec01000)]).toEqual([true, false]);
  });

  it('does 8 bytes in two halves', () => {
    const bus = new MmioBus();
    const probe = new Probe();
    bus.claim(0x1000, 0x1000, probe);
    expect([bus.read(0x1008, 8), bus.readHi]).toEqual([0xfffffffe, 0xfffffffe]);
    bus.write(0x1010, 8, 1, 2);
    expect(probe.log).toEqual(['load 8 4', 'load c 4', 'store 10 4 1', 'store 14 4 2']);
  });

  it('reads all ones where nobody is', () => {
    const bus = new MmioBus();
    expect([bus.read(5, 2), bus.read(2 ** 39, 8), bus.readHi]).toEqual([0xffff, 0xffffffff, 0xffffffff]);
    bus.write(5, 8, 0, 0);
  });

  it('refuses ranges that overlap', () => {
    const bus = new MmioBus();
    bus.claim(0x1000, 0x1000, new Probe());
    expect(() => bus.claim(0x1fff, 1, new Probe())).toThrow('gpa 0x1fff has two owners');
  });
});
