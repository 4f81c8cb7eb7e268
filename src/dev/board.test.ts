import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Board } from './board.ts';
import { DEBUG_EXIT, POWER_OFF } from './power.ts';

const build = (cpus = 1): { board: Board; sent: number[] } => {
  const sent: number[] = [];
  const board = new Board({
    ramBytes: 2 ** 27,
    cpus,
    epochS: 1_800_000_000,
    console: { writeByte: (byte) => sent.push(byte) },
    memory: { writeGuest: () => true },
  });
  return { board, sent };
};

const PORTS = [
  0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x60, 0x64, 0x70, 0x71, 0x92, 0xe0, 0xe4, 0xe8,
  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x510, 0x511, 0x600, 0x602, 0x604, 0x608, 0xcf8, 0xcf9, 0xcfc,
  0x2004,
];
const APIC_REGISTERS = [
  0x20, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x370, 0x380, 0x390, 0x3e0,
];

type Step = [kind: number, which: number, bytes: number, value: number];
const STEPS = fc.array(fc.tuple(fc.nat(4), fc.nat(999), fc.constantFrom(1, 2, 4), fc.nat(2 ** 32 - 1)), {
  maxLength: 150,
}) as fc.Arbitrary<Step[]>;

/** Does what a guest could do; returns all that it could see. */
const run = (board: Board, steps: Step[]): number[] =>
  steps.map(([kind, which, bytes, value]) => {
    const apic = board.cpus[0].apic;
    const port = PORTS[which % PORTS.length];
    switch (kind) {
      case 0:
        return board.ports.read(port, bytes);
      case 1:
        board.ports.write(port, bytes, value);
        return board.clock.nextDeadline;
      case 2:
        board.clock.advanceTo(board.clock.now + (value % 3e6));
        return apic.acknowledge();
      case 3:
        apic.mmioWrite(APIC_REGISTERS[which % APIC_REGISTERS.length], 4, value);
        return apic.mmioRead(APIC_REGISTERS[(which >> 4) % APIC_REGISTERS.length], 4);
      default:
        board.mmio.write(0xfec00000, 4, which % 64);
        board.mmio.write(0xfec00010, 4, value);
        board.uart.receive(Uint8Array.of(value & 0xff));
        return board.mmio.read(0xfec00010, 4);
    }
  });

/** The state with its arrays as strings, which compare faster. */
const shown = (board: Board): object =>
  Object.entries(board.copyState()).map(([name, fields]) => [
    name,
    Object.entries(fields).map(([field, value]) =>
      typeof value === 'object' ? [field, Buffer.from(value.buffer).toString('latin1')] : [field, value],
    ),
  ]);

describe('the board', () => {
  it('brings a byte to the guest by an interrupt through the IOAPIC', () => {
    const { board } = build();
    const { apic } = board.cpus[0];
    apic.mmioWrite(0xf0, 4, 0x1ff);
    board.mmio.write(0xfec00000, 4, 0x10 + 4 * 2);
    board.mmio.write(0xfec00010, 4, 0x34);
    board.ports.write(0x3fc, 1, 0x0b);
    board.ports.write(0x3f9, 1, 0x01);
    board.uart.receive(Uint8Array.of(0x41));
    board.clock.advanceTo(board.clock.nextDeadline);
    expect([apic.interruptPending(), apic.acknowledge(), board.ports.read(0x3f8, 1)]).toEqual([true, 0x34, 0x41]);
  });

  it('brings the timer to the guest through the PIC and LINT0', () => {
    const { board } = build();
    for (const [port, value] of [
      [0x20, 0x11],
      [0x21, 0x20],
      [0x21, 0x04],
      [0x21, 0x01],
      [0x43, 0x34],
      [0x40, 0x9c],
      [0x40, 0x2e],
    ]) {
      board.ports.write(port, 1, value);
    }
    board.clock.advanceTo(11e6);
    expect(board.cpus[0].apic.acknowledge()).toBe(0x20);
  });

  it('brings the timer to pin 2 of the IOAPIC', () => {
    const { board } = build();
    board.cpus[0].apic.mmioWrite(0xf0, 4, 0x1ff);
    board.mmio.write(0xfec00000, 4, 0x10 + 2 * 2);
    board.mmio.write(0xfec00010, 4, 0x30);
    for (const [port, value] of [
      [0x21, 0xff],
      [0x43, 0x34],
      [0x40, 0x9c],
      [0x40, 0x2e],
    ]) {
      board.ports.write(port, 1, value);
    }
    board.clock.advanceTo(11e6);
    expect(board.cpus[0].apic.acknowledge()).toBe(0x30);
  });

  it('has its console, its exits and its CPUs', () => {
    const { board, sent } = build(2);
    board.ports.write(0x3f8, 1, 0x21);
    expect(sent).toEqual([0x21]);
    expect(board.cpus.map(({ apic }) => apic.id)).toEqual([0, 1]);
    expect(board.ioapic.id).toBe(2);
    board.ports.write(0xf4, 4, 0);
    expect([board.power.request, board.power.status]).toEqual([DEBUG_EXIT, 1]);
    board.power.clear();
    board.ports.write(0x604, 2, 0x3400);
    expect(board.power.request).toBe(POWER_OFF);
  });

  it('moves a deadline of the counter when that is written', () => {
    const { board } = build();
    board.cpus[0].apic.mmioWrite(0xf0, 4, 0x1ff);
    board.cpus[0].apic.mmioWrite(0x320, 4, 0x40040);
    board.cpus[0].apic.writeMsr(0x6e0, 5000, 0);
    board.writeTsc(0, 4000, 0);
    expect(board.clock.nextDeadline).toBe(1000);
  });

  it('goes on the same way from a copy of its state, whatever a guest has done', () => {
    fc.assert(
      fc.property(STEPS, STEPS, (before, after) => {
        const first = build();
        run(first.board, before);
        const second = build();
        second.board.putState(structuredClone(first.board.copyState()));
        expect(shown(second.board)).toEqual(shown(first.board));
        first.sent.length = 0;
        expect(run(second.board, after)).toEqual(run(first.board, after));
        expect(second.sent).toEqual(first.sent);
        expect(shown(second.board)).toEqual(shown(first.board));
      }),
      { numRuns: 100 },
    );
  });
});
