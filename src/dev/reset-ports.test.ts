import { beforeEach, describe, expect, it } from 'vitest';
import { Board } from './board.ts';
import { BOOT, POWER_OFF, PowerState, RESET, RUNNING } from './power.ts';

let board: Board;

beforeEach(() => {
  board = new Board({
    ramBytes: 2 ** 24,
    cpus: 2,
    epochS: 0,
    console: { writeByte: () => {} },
    memory: { writeGuest: () => true },
  });
});

const out = (port: number, value: number): void => board.ports.write(port, 1, value);
const input = (port: number): number => board.ports.read(port, 1);

/** Whether INIT has come to each processor; forgets it. */
function initTaken(): boolean[] {
  return board.cpus.map(({ apic }) => {
    const { initPending } = apic;
    apic.initPending = false;
    return initPending;
  });
}

const NONE = [false, false];
const ALL = [true, true];

describe('INIT# comes to all processors', () => {
  it('from the keyboard controller, which is otherwise not there: by a pulse of its line 0', () => {
    expect([input(0x64) & 2, input(0x60)]).toEqual([0, 0xff]);
    for (const command of [0xaa, 0xff, 0xfd]) out(0x64, command);
    out(0x60, 0xfe);
    expect(initTaken()).toEqual(NONE);
    out(0x64, 0xfe);
    expect(initTaken()).toEqual(ALL);
  });

  it('from its output port, when bit 0 is written as 0', () => {
    out(0x64, 0xd0);
    const value = input(0x60);
    expect([value & 3, input(0x60)]).toEqual([3, 0xff]);
    out(0x64, 0xd1);
    out(0x60, value);
    out(0x60, value & ~1); // not after the command
    expect(initTaken()).toEqual(NONE);
    out(0x64, 0xd1);
    out(0x60, value & ~1);
    expect(initTaken()).toEqual(ALL);
  });

  it('from the system control port when its bit 0 rises, which stays', () => {
    expect(input(0x92)).toBe(2);
    out(0x92, 0);
    expect([initTaken(), input(0x92)]).toEqual([NONE, 2]);
    out(0x92, 3);
    expect(initTaken()).toEqual(ALL);
    out(0x92, 3);
    expect([initTaken(), input(0x92)]).toEqual([NONE, 3]);
  });

  it("from the PCI host's reset register, without the bit for the whole machine", () => {
    out(0xcf9, 0);
    out(0xcf9, 2);
    expect([initTaken(), board.power.request, input(0xcf9)]).toEqual([NONE, RUNNING, 2]);
    out(0xcf9, 4);
    expect([initTaken(), board.power.request]).toEqual([ALL, RUNNING]);
    out(0xcf9, 6);
    expect([initTaken(), board.power.request]).toEqual([NONE, RESET]);
  });
});

describe('a request to the machine', () => {
  it('comes from firmware that wants the kernel', () => {
    out(0x560, 0);
    expect(board.power.request).toBe(BOOT);
  });

  it('does not override an earlier one', () => {
    const power = new PowerState();
    power.ask(POWER_OFF);
    power.ask(RESET);
    expect(power.request).toBe(POWER_OFF);
    power.clear();
    expect(power.request).toBe(RUNNING);
  });
});

describe('the reset of a board', () => {
  it('puts everything back but the time, CMOS memory and what the host has typed', () => {
    const { uart, pit, rtc, clock } = board;
    board.uart.receive(Uint8Array.of(65, 66));
    for (const [port, value] of [
      [0x43, 0x34],
      [0x40, 0],
      [0x40, 1],
      [0x21, 0],
      [0x70, 0x0f],
      [0x71, 0x0a],
      [0x70, 0x0b],
      [0x71, 0x42],
      [0x3f9, 1],
      [0x3fc, 8],
      [0x92, 1],
    ])
      out(port, value);
    board.cpus[0].apic.mmioWrite(0x80, 4, 0x50);
    clock.advanceTo(1e6);
    board.reset();
    expect([clock.now, pit.loaded[0], [...board.pic.imr], rtc.cmos[0x0f], rtc.cmos[0x0b]]).toEqual([
      1e6,
      0,
      [0xff, 0xff],
      0x0a,
      2,
    ]);
    expect([board.cpus[0].apic.cr8(), uart.ier, input(0x92)]).toEqual([0, 0, 3]);
    // The first byte was in the FIFO; the second is still on its way.
    clock.advanceTo(1e9);
    expect([input(0x3f8), input(0x3f8)]).toEqual([66, 0]);
  });
});
