import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualClock } from './clock.ts';
import { IrqLine, NO_IRQ } from './irq.ts';
import { Uart16550 } from './uart-16550.ts';

const CHARACTER_NS = 86806;

describe('the serial port', () => {
  let clock: VirtualClock;
  let irq: IrqLine;
  let sent: number[];
  let uart: Uart16550;
  const inb = (reg: number): number => uart.portRead(0x3f8 + reg);
  const outb = (reg: number, value: number): void => uart.portWrite(0x3f8 + reg, 1, value);
  const wait = (characters: number): void => clock.advanceTo(clock.now + characters * CHARACTER_NS);
  const type = (text: string): void => uart.receive(Uint8Array.from(text, (c) => c.charCodeAt(0)));
  /** FIFOs with a trigger at 8, the interrupt pin open. */
  const setUp = (ier: number): void => {
    outb(2, 0x81);
    outb(4, 0x0b);
    outb(1, ier);
  };

  beforeEach(() => {
    clock = new VirtualClock();
    irq = new IrqLine(NO_IRQ, 4);
    sent = [];
    uart = new Uart16550(clock, irq, { writeByte: (byte) => sent.push(byte) });
  });

  it('sends at once, and its transmitter is always empty', () => {
    expect(inb(5) & 0x60).toBe(0x60);
    outb(0, 0x41);
    outb(0, 0x42);
    expect(sent).toEqual([0x41, 0x42]);
    expect(inb(5) & 0x60).toBe(0x60);
  });

  it('keeps the divisor behind DLAB', () => {
    outb(3, 0x83);
    outb(0, 0x0c);
    outb(1, 0x01);
    expect([inb(0), inb(1)]).toEqual([0x0c, 0x01]);
    outb(3, 0x03);
    expect([inb(1), sent.length, uart.divisor]).toEqual([0, 0, 0x10c]);
  });

  it('is found to be a 16550A: FIFO bits in IIR, a scratch register, a loopback that shows the modem lines', () => {
    outb(2, 0x01);
    expect(inb(2)).toBe(0xc1);
    outb(2, 0x00);
    expect(inb(2)).toBe(0x01);
    outb(7, 0xa5);
    expect(inb(7)).toBe(0xa5);
    outb(4, 0x1a);
    expect(inb(6) & 0xf0).toBe(0x90);
    outb(4, 0x15);
    expect(inb(6) & 0xf0).toBe(0x60);
  });

  it('tells by an interrupt that the transmitter is empty, until IIR is read', () => {
    setUp(0x02);
    expect([irq.level, inb(2)]).toEqual([true, 0xc2]);
    expect([irq.level, inb(2)]).toEqual([false, 0xc1]);
    outb(0, 0x41);
    expect([irq.level, inb(2)]).toEqual([true, 0xc2]);
    outb(1, 0);
    outb(1, 2);
    expect([irq.level, inb(2)]).toEqual([true, 0xc2]);
  });

  it('raises no interrupt while OUT2 is off', () => {
    outb(1, 0x02);
    expect(irq.level).toBe(false);
    outb(4, 0x08);
    expect(irq.level).toBe(true);
  });

  it('takes a byte from the host after the time it needs on the line', () => {
    setUp(0);
    type('x');
    expect(inb(5) & 1).toBe(0);
    wait(1);
    expect(inb(5) & 1).toBe(1);
    expect(inb(0)).toBe(0x78);
    expect(inb(5) & 1).toBe(0);
  });

  it('interrupts at the trigger level, and after a silence below it', () => {
    setUp(0x01);
    type('123456789');
    wait(7);
    expect(irq.level).toBe(false);
    wait(1);
    expect([irq.level, inb(2)]).toEqual([true, 0xc4]);
    for (let i = 0; i < 8; i++) inb(0);
    expect(irq.level).toBe(false);
    wait(1);
    expect(irq.level).toBe(false);
    wait(4);
    expect([irq.level, inb(2)]).toEqual([true, 0xcc]);
    expect(inb(0)).toBe(0x39);
    expect([irq.level, inb(2)]).toEqual([false, 0xc1]);
  });

  it('loses nothing of a long input, whenever the guest reads it', () => {
    setUp(0);
    const text = 'All that the host sends waits until the FIFO has room for it. '.repeat(20);
    type(text);
    let got = '';
    for (let i = 0; got.length < text.length && i < 10000; i++) {
      wait(i % 40);
      while (inb(5) & 1) got += String.fromCharCode(inb(0));
    }
    expect(got).toBe(text);
  });

  it('has room for one byte without FIFOs', () => {
    outb(4, 0x0b);
    outb(1, 0x01);
    type('ab');
    wait(5);
    expect([irq.level, inb(2), inb(0), inb(5) & 1]).toEqual([true, 0x04, 0x61, 0]);
    wait(1);
    expect(inb(0)).toBe(0x62);
  });

  it('drops what is in the FIFO when told to, not what is still on the way', () => {
    setUp(0);
    type('a'.repeat(20));
    wait(30);
    outb(2, 0x83);
    expect(inb(5) & 1).toBe(0);
    wait(10);
    let left = 0;
    while (inb(5) & 1) left += inb(0) > 0 ? 1 : 0;
    expect(left).toBe(4);
  });

  it('loops back what it sends, and reports an overrun once', () => {
    outb(2, 0x01);
    outb(4, 0x10);
    for (let i = 0; i < 17; i++) outb(0, i);
    expect(sent).toEqual([]);
    expect([inb(5) & 3, inb(5) & 3]).toEqual([3, 1]);
    expect(Array.from({ length: 16 }, () => inb(0))).toEqual(Array.from({ length: 16 }, (_, i) => i));
  });

  it('reports changed modem lines once', () => {
    setUp(0x08);
    inb(6);
    expect(irq.level).toBe(false);
    outb(4, 0x10);
    outb(4, 0x08);
    expect([irq.level, inb(2)]).toEqual([true, 0xc0]);
    expect(inb(6) & 0x0f).not.toBe(0);
    expect([irq.level, inb(6) & 0x0f]).toEqual([false, 0]);
  });
});
