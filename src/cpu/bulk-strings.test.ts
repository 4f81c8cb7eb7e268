import { describe, expect, it } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HALT } from './bus.ts';
import { CR2, FLAGS, INSTRUCTIONS, LINEAR_RIP, RAX, RCX, RDI, RSI } from './state.ts';
import { setRip } from './testing/bare-machine.ts';
import { CODE, load, prepared } from './testing/prepared-machine.ts';

const FROM = 0x300000;
const TO = 0x400000;

function ready(code: string, count: number, to = TO, from = FROM) {
  const machine = prepared();
  const { state } = machine.cpu;
  for (let i = 0; i < 0x4000; i++) machine.ram[FROM + i] = (i * 7) ^ (i >> 8);
  state.setPair(RCX, count, 0);
  state.setPair(RDI, to, 0);
  state.setPair(RSI, from, 0);
  load(machine, `${code} f4`);
  return machine;
}

describe('repeated string instructions', () => {
  // biome-ignore format: a table
  it.each([
    ['REP MOVSB', 'f3a4',   1, 9999, 3, 1],
    ['REP MOVSW', 'f366a5', 2, 3000, 1, 2],
    ['REP MOVSQ', 'f348a5', 8, 1500, 0, 4],
  ])('%s copies across pages', (_name, code, bytes, count, offset, start) => {
    const machine = ready(code, count, TO + offset, FROM + start);
    expect(machine.cpu.run(1e6)).toBe(EXIT_HALT);
    const size = bytes * count;
    expect(machine.ram.slice(TO + offset, TO + offset + size)).toEqual(machine.ram.slice(FROM + start, FROM + start + size));
    expect(machine.ram[TO + offset + size]).toBe(0);
    const { state } = machine.cpu;
    expect([RCX, RDI, RSI].map((r) => state.get(r))).toEqual([0, TO + offset + size, FROM + start + size]);
    // Each step counts, and the HLT.
    expect(state.get(INSTRUCTIONS)).toBe(count + 1);
  });

  it('REP STOS of each width repeats the accumulator', () => {
    for (const [code, bytes] of [
      ['f3aa', 1],
      ['f366ab', 2],
      ['f3ab', 4],
      ['f348ab', 8],
    ] as const) {
      const machine = ready(code, 1000, TO + 5);
      machine.cpu.state.setPair(RAX, 0x44332211, 0x88776655 | 0);
      expect(machine.cpu.run(1e6)).toBe(EXIT_HALT);
      for (let i = 0; i < 1000 * bytes; i++) expect(machine.ram[TO + 5 + i]).toBe(0x11 * ((i % bytes) + 1));
      expect(machine.ram[TO + 5 + 1000 * bytes]).toBe(0);
    }
  });

  it('a copy onto what comes next repeats its beginning', () => {
    const machine = ready('f3a4', 500, FROM + 3);
    expect(machine.cpu.run(1e6)).toBe(EXIT_HALT);
    for (let i = 3; i < 503; i++) expect(machine.ram[FROM + i]).toBe(machine.ram[FROM + (i % 3)]);
  });

  it('goes down under DF', () => {
    const machine = ready('f3a4', 500, TO + 499, FROM + 499);
    machine.cpu.state.set(FLAGS, 0x400);
    expect(machine.cpu.run(1e6)).toBe(EXIT_HALT);
    expect(machine.ram.slice(TO, TO + 500)).toEqual(machine.ram.slice(FROM, FROM + 500));
  });

  it('stops at a page that is absent, and goes on from there', () => {
    const machine = ready('f348ab', 2000);
    const { cpu, bus } = machine;
    bus.absent.add((TO >>> 12) + 2);
    cpu.interceptExceptions = -1;
    expect(cpu.run(1e6)).toBe(EXIT_EXCEPTION);
    expect(cpu.state.get(CR2)).toBe(TO + 0x2000);
    expect(cpu.state.get(RCX)).toBe(2000 - 1024);
    expect(cpu.state.get(LINEAR_RIP)).toBe(CODE);
    bus.absent.clear();
    expect(cpu.run(1e6)).toBe(EXIT_HALT);
    expect(cpu.state.get(RCX)).toBe(0);
  });

  it('writes to code page by page, so that it is decoded again', () => {
    const machine = ready('f3aa', 4096, CODE + 0x1000);
    load(machine, 'ffc0 f4', CODE + 0x1800);
    setRip(machine.cpu, CODE + 0x1800);
    expect(machine.cpu.run(10)).toBe(EXIT_HALT);
    setRip(machine.cpu, CODE);
    machine.cpu.state.setPair(RAX, 0x90, 0);
    load(machine, 'f3aa f4');
    expect(machine.cpu.run(1e6)).toBe(EXIT_HALT);
    load(machine, 'f4', CODE + 0x2000);
    setRip(machine.cpu, CODE + 0x1800);
    expect(machine.cpu.run(1e4)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(LINEAR_RIP)).toBe(CODE + 0x2001);
    expect(machine.cpu.state.get(RAX)).toBe(0x90);
  });
});
