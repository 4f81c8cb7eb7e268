/** Breakpoints: on code, on data, on ports, and what DR6 and RF say about them. */
import { describe, expect, it } from 'vitest';
import { EXIT_HALT } from '../bus.ts';
import { CR4, DR0, DR6, DR7, FLAGS, LINEAR_RIP, RAX, RCX } from '../state.ts';
import { type BareMachine } from '../testing/bare-machine.ts';
import { CODE, HANDLER, load, prepared } from '../testing/prepared-machine.ts';

const AT = 0x300000;
const HITS = 0x800;

/**
 * Breakpoint 1 at an address, of a kind (0 code, 1 write, 2 port, 3 data) and length (0 1 byte, 1 2 bytes, 3 4 bytes, 2 8 bytes). The
 * handler of #DB counts in memory, and keeps where it was and DR6; it sets RF and goes back.
 */
function machineWith(kind: number, length: number, address = AT): BareMachine {
  const machine = prepared();
  const { cpu } = machine;
  cpu.state.setPair(DR0 + 8, address, 0);
  cpu.state.set(DR7, 0x400 | 8 | (kind << 20) | (length << 22));
  cpu.state.set(CR4, cpu.state.get(CR4) | 8);
  cpu.debugChanged();
  // PUSH RAX; INC [HITS]; MOV RAX, [RSP+8]; MOV [HITS+8], RAX; MOV RAX, DR6; MOV [HITS+16], RAX; POP RAX; OR [RSP+16], 10000; IRETQ
  const handler = `50 ff0425${HEX} 488b442408 48890425${hex(HITS + 8)} 0f21f0 48890425${hex(HITS + 16)} 58 814c241000000100 48cf`;
  load(machine, 'e9fb0e0000', HANDLER + 16);
  load(machine, handler, HANDLER + 0xf10);
  return machine;
}

const hex = (value: number) => Buffer.from(new Uint32Array([value]).buffer).toString('hex');
const HEX = hex(HITS);

/** How often the handler ran, and what it saw last: offset in the code, low bits of DR6. */
function hits(machine: BareMachine): [count: number, offset: number, dr6: number] {
  const view = new DataView(machine.ram.buffer, machine.ram.byteOffset);
  return [view.getUint32(HITS, true), view.getUint32(HITS + 8, true) - CODE, view.getUint32(HITS + 16, true) & 0xe00f];
}

function run(machine: BareMachine, code: string): void {
  load(machine, `${code} f4`);
  expect(machine.cpu.run(10_000)).toBe(EXIT_HALT);
}

describe('a breakpoint on code', () => {
  it('stops before its instruction, which RF lets happen once', () => {
    const machine = machineWith(0, 0, CODE + 2);
    run(machine, '9090 48ffc0 48ffc0');
    expect(hits(machine)).toEqual([1, 2, 2]);
    expect([machine.cpu.state.get(RAX), machine.cpu.state.get(FLAGS) & 0x10000]).toEqual([2, 0]);
  });

  it('stops each time in a loop', () => {
    const machine = machineWith(0, 0, CODE + 5);
    // MOV ECX, 7; INC RAX; LOOP
    run(machine, 'b907000000 48ffc0 e2fb');
    expect(hits(machine)).toEqual([7, 5, 2]);
    expect(machine.cpu.state.get(RAX)).toBe(7);
  });

  it('is found when it is set by the code before it, on the same page', () => {
    const machine = machineWith(0, 0, CODE + 0x100);
    // MOV EAX, CODE + 11; MOV DR1, RAX; NOP; NOP; NOP
    run(machine, `b8${hex(CODE + 10)} 0f23c8 90 90 90`);
    expect(hits(machine)).toEqual([1, 10, 2]);
  });
});

describe('a breakpoint on data', () => {
  // biome-ignore format: a table
  it.each([
    ['a write to it',                 1, 0, `c60425${hex(AT)}01`,          1],
    ['a write beside it',             1, 0, `c60425${hex(AT + 1)}01`,      0],
    ['a write that covers it',        1, 0, `c70425${hex(AT - 3)}01000000`, 1],
    ['a write across the page to it', 1, 0, `c70425${hex(AT - 1)}01000000`, 1],
    ['a write within its length',     1, 3, `c60425${hex(AT + 3)}01`,      1],
    ['a write behind its length',     1, 3, `c60425${hex(AT + 4)}01`,      0],
    ['a read, though only of writes', 1, 0, `8a0425${hex(AT)}`,            0],
    ['a read',                        3, 0, `8a0425${hex(AT)}`,            1],
    ['a push to it',                  1, 2, `bc${hex(AT + 8)} 50 bc00f01f00`, 1],
    ['an addition to it',             1, 0, `800425${hex(AT)}01`,          1],
  ])('%s', (_, kind, length, code, count) => {
    const machine = machineWith(kind, length);
    run(machine, `90 ${code} 90`);
    expect(hits(machine)[0]).toBe(count);
  });

  it('traps behind the instruction, once it is done', () => {
    const machine = machineWith(1, 0);
    run(machine, `c60425${hex(AT)}01 90`);
    expect(hits(machine)).toEqual([1, 8, 2]);
    expect(machine.ram[AT]).toBe(1);
  });

  it('stops a repeated store between two of its steps', () => {
    const machine = machineWith(1, 0, AT + 40);
    // MOV EDI, AT; MOV ECX, 100; REP STOSB
    run(machine, `bf${hex(AT)} b964000000 f3aa`);
    expect(hits(machine)).toEqual([1, 10, 2]);
    expect(machine.cpu.state.get(RCX)).toBe(0);
  });

  it('hit by a load of SS is told behind the next instruction', () => {
    const machine = machineWith(3, 0);
    machine.ram[AT] = 0x18;
    run(machine, `8e1425${hex(AT)} 90 90`);
    expect(hits(machine)).toEqual([1, 8, 2]);
  });

  it('hit by a load of SS is told together with a breakpoint on the next instruction, and not in the handler', () => {
    const machine = machineWith(3, 0);
    const { cpu } = machine;
    machine.ram[AT] = 0x18;
    cpu.state.setPair(DR0, CODE + 7, 0);
    cpu.state.set(DR7, cpu.state.get(DR7) | 2);
    cpu.debugChanged();
    run(machine, `8e1425${hex(AT)} 90 90`);
    expect(hits(machine)).toEqual([1, 7, 3]);
  });
});

describe('DR6', () => {
  it('keeps what software has set but for the breakpoints of before', () => {
    const machine = machineWith(1, 0);
    machine.cpu.state.set(DR6, machine.cpu.state.get(DR6) | 0x4001);
    run(machine, `c60425${hex(AT)}01 90`);
    expect(hits(machine)[2]).toBe(0x4002);
  });

  it('tells of a breakpoint and a single step together', () => {
    const machine = machineWith(1, 0);
    // The handler leaves TF on.
    machine.cpu.state.set(FLAGS, machine.cpu.state.get(FLAGS) | 0x100);
    load(machine, `c60425${hex(AT)}01 eb08`);
    for (let i = 0; i < 9 && hits(machine)[2] === 0; i++) machine.cpu.run(1);
    expect(hits(machine)).toEqual([1, 8, 0x4002]);
  });
});

describe('a breakpoint on a port', () => {
  it('traps behind the access', () => {
    const machine = machineWith(2, 0, 0x80);
    run(machine, 'e680 90');
    expect(hits(machine)).toEqual([1, 2, 2]);
  });

  it('needs CR4.DE', () => {
    const machine = machineWith(2, 0, 0x80);
    machine.cpu.state.set(CR4, machine.cpu.state.get(CR4) & ~8);
    machine.cpu.debugChanged();
    run(machine, 'e680 90');
    expect(hits(machine)[0]).toBe(0);
    expect(machine.cpu.state.get(LINEAR_RIP)).toBe(CODE + 4);
  });
});
