import { beforeEach, describe, expect, it } from 'vitest';
import { IrqLine, NO_IRQ } from './irq.ts';
import { Pic8259 } from './pic-8259.ts';

describe('the pair of 8259s', () => {
  let intr: IrqLine;
  let pic: Pic8259;
  const outb = (port: number, value: number): void => pic.portWrite(port, 1, value);
  const inb = (port: number): number => pic.portRead(port);
  const setUp = (master = 0x30, slave = 0x38, icw4 = 0x01): void => {
    for (const [port, base, link] of [
      [0x20, master, 4],
      [0xa0, slave, 2],
    ]) {
      outb(port, 0x11);
      outb(port + 1, base);
      outb(port + 1, link);
      outb(port + 1, icw4);
      outb(port + 1, 0);
    }
  };
  const raise = (irq: number): void => pic.setPin(irq, true);
  const pulse = (irq: number): void => {
    pic.setPin(irq, true);
    pic.setPin(irq, false);
  };

  beforeEach(() => {
    intr = new IrqLine(NO_IRQ, 0);
    pic = new Pic8259(intr);
    setUp();
  });

  it('asks the processor and names the vector', () => {
    expect(pic.output).toBe(false);
    raise(4);
    expect([pic.output, intr.level]).toEqual([true, true]);
    expect(pic.acknowledge()).toBe(0x34);
    expect(pic.output).toBe(false);
  });

  it('passes the inputs of the slave through input 2', () => {
    raise(8);
    expect(pic.acknowledge()).toBe(0x38);
    outb(0x20, 0x0b);
    outb(0xa0, 0x0b);
    expect([inb(0x20), inb(0xa0)]).toEqual([0x04, 0x01]);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    expect([inb(0x20), inb(0xa0)]).toEqual([0, 0]);
  });

  it('remembers the mask and holds back what is masked', () => {
    outb(0x21, 0xfb);
    expect(inb(0x21)).toBe(0xfb);
    raise(1);
    expect(pic.output).toBe(false);
    outb(0x21, 0xf9);
    expect([pic.output, pic.acknowledge()]).toEqual([true, 0x31]);
  });

  it('serves the lower number first, and nothing less important than what is in service', () => {
    pulse(5);
    pulse(3);
    expect(pic.acknowledge()).toBe(0x33);
    expect(pic.output).toBe(false);
    pulse(1);
    expect(pic.acknowledge()).toBe(0x31);
    outb(0x20, 0x20);
    outb(0x20, 0x20);
    expect(pic.acknowledge()).toBe(0x35);
  });

  it('counts an edge once, however long the wire stays high', () => {
    raise(4);
    pic.acknowledge();
    outb(0x20, 0x20);
    expect(pic.output).toBe(false);
    pic.setPin(4, false);
    raise(4);
    expect(pic.output).toBe(true);
  });

  it('counts a level as long as the wire is high', () => {
    outb(0x4d0, 0xff);
    outb(0x4d1, 0xff);
    expect([inb(0x4d0), inb(0x4d1)]).toEqual([0xf8, 0xde]);
    raise(9);
    expect(pic.acknowledge()).toBe(0x39);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    expect(pic.output).toBe(true);
    pic.setPin(9, false);
    expect(pic.output).toBe(false);
  });

  it('gives the spurious vector when the request has gone', () => {
    expect(pic.acknowledge()).toBe(0x37);
  });

  it('ends a given interrupt by its number', () => {
    pulse(3);
    pulse(1);
    pic.acknowledge();
    expect(pic.output).toBe(false);
    outb(0x20, 0x61);
    expect(pic.acknowledge()).toBe(0x33);
  });

  it('needs no end of interrupt in automatic mode', () => {
    setUp(0x30, 0x38, 0x03);
    pulse(3);
    pic.acknowledge();
    outb(0x20, 0x0b);
    expect(inb(0x20)).toBe(0);
  });

  it('rotates priorities', () => {
    outb(0x20, 0xc3); // 3 is the lowest, 4 the highest
    pulse(3);
    pulse(4);
    expect(pic.acknowledge()).toBe(0x34);
    outb(0x20, 0xa0); // ends it and makes it the lowest
    pulse(4);
    expect(pic.acknowledge()).toBe(0x33);
  });

  it('answers a poll', () => {
    pulse(6);
    outb(0x20, 0x0c);
    expect(inb(0x20)).toBe(0x86);
    outb(0x20, 0x0c);
    expect(inb(0x20)).toBe(0);
  });

  it('lets lower ones through in special mask mode', () => {
    pulse(1);
    pic.acknowledge();
    pulse(3);
    outb(0x21, 0x02);
    expect(pic.output).toBe(false);
    outb(0x20, 0x68);
    expect(pic.acknowledge()).toBe(0x33);
  });

  it('forgets everything when it is initialized', () => {
    pulse(3);
    outb(0x20, 0x11);
    expect(pic.output).toBe(false);
  });
});
