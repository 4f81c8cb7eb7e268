/** What segments are about: limits and types, gates, tasks, virtual-8086 mode. */
import { describe, expect, it } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HALT } from '../bus.ts';
import { selectorOf } from '../segments.ts';
import { CPL, CR0, CS, CS_BASE, FLAGS, LINEAR_RIP, RAX, RDX, RSP, SS, TR } from '../state.ts';
import { type BareMachine } from '../testing/bare-machine.ts';
import { CODE, GDT, IDT, load, TSS } from '../testing/prepared-machine.ts';
import {
  DATA,
  GATE,
  OTHER_STACK,
  OTHER_TASK,
  OTHER_TSS,
  otherTask,
  protectedMachine,
  words,
} from '../testing/protected-machine.ts';

/** The exception that code ends with, as `vector:error`, or 'none' when it reaches its HLT. */
function outcome(machine: BareMachine, hex: string): string {
  load(machine, `${hex} f4`);
  machine.cpu.interceptExceptions = -1;
  const why = machine.cpu.run(1000);
  if (why !== EXIT_EXCEPTION) return why === EXIT_HALT ? 'none' : `exit ${why}`;
  const { vector, error } = machine.cpu.intercepted;
  return `${vector}:${error.toString(16)}`;
}

/** MOV AX, selector; MOV DS, AX (8e d8), ES (8e c0), SS (8e d0), FS (8e e0). */
const ds = (selector: string) => `66b8${selector}00 8ed8`;

describe('segments', () => {
  // biome-ignore format: a table
  it.each([
    ['the last word of a segment',               `${ds('38')} a1fc0f0000`,                        'none'],
    ['a word that ends behind its segment',      `${ds('38')} a1fd0f0000`,                        '13:0'],
    ['a byte behind its segment',                `${ds('38')} c6050010000001`,                    '13:0'],
    ['the same through another segment',         `${ds('38')} 26c6050010000001`,                  'none'],
    ['a string step that leaves its segment',    `${ds('38')} bef00f0000 bf00002000 b908000000 f3a5`, '13:0'],
    ['a repeated store that leaves its segment', `66b83800 8ec0 bff00f0000 b908000000 f3ab`,      '13:0'],
    ['the stack outside of its segment',         `66b83800 8ed0 bc04100000 58`,                   '12:0'],
    ['a push at the start of its segment',       `66b83800 8ed0 bc00000000 50`,                   '12:0'],
    ['a read of what is read-only',              `${ds('40')} a100000000`,                        'none'],
    ['a write to what is read-only',             `${ds('40')} a300000000`,                        '13:0'],
    ['a write to code',                          `2ea300000000`,                                  '13:0'],
    ['a read of code',                           `2ea100000000`,                                  'none'],
    ['below a segment that grows downwards',     `${ds('58')} a1ff0f0000`,                        '13:0'],
    ['within a segment that grows downwards',    `${ds('58')} a100100000`,                        'none'],
    ['a read by a null selector',                `66b80000 8ee0 64a100000000`,                    '13:0'],
    ['a null selector that is not used',         `66b80000 8ee0 a100000000`,                      'none'],
  ])('%s: %#', (_, code, expected) => {
    expect(outcome(protectedMachine(), code)).toBe(expected);
  });

  it('have their base added', () => {
    const machine = protectedMachine();
    words(machine).setUint32(DATA + 0x10, 0x12345678, true);
    load(machine, `${ds('38')} a110000000 f4`);
    machine.cpu.run(100);
    expect(machine.cpu.state.get(RAX)).toBe(0x12345678);
  });
});

describe('a call gate', () => {
  it('leads inwards with its parameters, and back', () => {
    const machine = protectedMachine(3);
    // PUSH 11; PUSH 22; CALL 48:0; HLT faults in ring 3
    load(machine, '6a11 6a22 9a000000004800 f4');
    // MOV EAX, [ESP+8]; MOV EBX, CS; RETF 8
    load(machine, '8b442408 8ccb ca0800', GATE);
    const before = machine.cpu.state.get(RSP);
    expect(outcome(machine, '6a11 6a22 9a000000004800')).toBe('13:0');
    const { state } = machine.cpu;
    expect([state.get(RAX), state.get(CPL), state.get(RSP)]).toEqual([0x22, 3, before]);
    expect([selectorOf(machine.cpu, CS), selectorOf(machine.cpu, SS)]).toEqual([0x1b, 0x23]);
  });

  // biome-ignore format: a table
  it.each([
    ['whose DPL is too low',    0x0000ac0200080000n, '13:48'],
    ['that is not present',     0x00006c0200080000n, '11:48'],
    ['to data',                 0x0000ec0200100000n, '13:10'],
    ['to nothing',              0x0000ec0200000000n, '13:0'],
  ])('%s is refused', (_, gate, expected) => {
    const machine = protectedMachine(3);
    words(machine).setBigUint64(GDT + 0x48, gate, true);
    expect(outcome(machine, '9a000000004800')).toBe(expected);
  });
});

describe('a task', () => {
  it.each([
    ['called', '9a000000003000'],
    ['called through a gate', '9a000000005000'],
  ])('that is %s runs with its registers, and IRET comes back', (_, call) => {
    const machine = protectedMachine();
    otherTask(machine, 'b877000000 9c 5b cf');
    load(machine, `bd99000000 ${call} f4`);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    const view = words(machine);
    const { state } = machine.cpu;
    expect(state.get(LINEAR_RIP)).toBe(CODE + 13);
    // Its registers were kept there, NT not; both busy bits are as before; TS is set.
    expect([view.getUint32(OTHER_TSS + 0x28, true), view.getUint32(OTHER_TSS + 0x34, true) & 0x4000]).toEqual([
      0x77, 0x4000,
    ]);
    expect(view.getUint32(OTHER_TSS + 0x24, true) & 0x4000).toBe(0);
    expect(view.getUint32(OTHER_TSS + 0x20, true)).toBe(OTHER_TASK + 8);
    expect([view.getUint8(GDT + 0x2d), view.getUint8(GDT + 0x35)]).toEqual([0x8b, 0x89]);
    expect([selectorOf(machine.cpu, TR), state.get(CR0) & 8, view.getUint16(OTHER_TSS, true)]).toEqual([0x28, 8, 0x28]);
  });

  it('that is jumped to becomes the busy one', () => {
    const machine = protectedMachine();
    otherTask(machine, 'f4');
    load(machine, 'ea000000003000');
    machine.cpu.run(100);
    const view = words(machine);
    expect([view.getUint8(GDT + 0x2d), view.getUint8(GDT + 0x35)]).toEqual([0x89, 0x8b]);
    expect([machine.cpu.state.get(RSP), machine.cpu.state.get(FLAGS) & 0x4000]).toEqual([OTHER_STACK, 0]);
    expect(view.getUint32(TSS + 0x20, true)).toBe(CODE + 7);
  });

  it('behind a task gate of the IDT gets the error code of the exception', () => {
    const machine = protectedMachine();
    words(machine).setBigUint64(IDT + 13 * 8, 0x0000850000300000n, true);
    otherTask(machine, '58 f4');
    load(machine, '66b8ff00 8ed8');
    machine.cpu.run(100);
    expect([machine.cpu.state.get(RAX), machine.cpu.state.get(RSP)]).toEqual([0xfc, OTHER_STACK]);
    // The instruction will be begun again.
    expect(words(machine).getUint32(TSS + 0x20, true)).toBe(CODE + 4);
    expect(words(machine).getUint32(TSS + 0x24, true) & 0x10000).toBe(0x10000);
  });

  // biome-ignore format: a table
  it.each<[string, (view: DataView) => void, string]>([
    ['that is too short',            (v) => v.setUint16(GDT + 0x30, 0x66, true),          '10:30'],
    ['that runs already',            (v) => v.setUint8(GDT + 0x35, 0x8b),                 '13:30'],
    ['that is not present',          (v) => v.setUint8(GDT + 0x35, 0x09),                 '11:30'],
    ['whose stack is code',          (v) => v.setUint32(OTHER_TSS + 0x50, 0x08, true),    '10:8'],
    ['whose data is of another ring',(v) => v.setUint32(OTHER_TSS + 0x54, 0x13, true),    '10:10'],
    ['whose code is data',           (v) => v.setUint32(OTHER_TSS + 0x4c, 0x10, true),    '10:10'],
    ['whose LDT is none',            (v) => v.setUint16(OTHER_TSS + 0x60, 0x10, true),    '10:10'],
  ])('%s is a fault', (_, change, expected) => {
    const machine = protectedMachine();
    otherTask(machine, 'f4', change);
    expect(outcome(machine, '9a000000003000')).toBe(expected);
  });
});

describe('virtual-8086 mode', () => {
  /** IRET to 1234:0010 with flags, and what is there. */
  function virtual(flags: number, hex: string): BareMachine {
    const machine = protectedMachine();
    load(machine, hex, 0x12350);
    const push = (value: number) => `68${Buffer.from(new Uint32Array([value]).buffer).toString('hex')}`;
    const frame = [0x55, 0x44, 0x33, 0x22, 0x2000, 0x100, flags, 0x1234, 0x10];
    load(machine, `${frame.map(push).join('')} cf`);
    machine.cpu.run(200);
    return machine;
  }

  it('has segments that are addresses, and leaves by an exception, all of it on the stack of ring 0', () => {
    // MOV AX, 7777; MOV DS, AX; UD2
    const machine = virtual(0x20002, 'b87777 8ed8 0f0b');
    const { state } = machine.cpu;
    const frame = Array.from({ length: 9 }, (_, i) => words(machine).getUint32(state.get(RSP) + i * 4, true));
    expect(frame).toEqual([0x15, 0x1234, 0x30002, 0x100, 0x2000, 0x22, 0x7777, 0x44, 0x55]);
    expect([state.get(RDX), state.get(CPL), selectorOf(machine.cpu, 3), state.get(FLAGS) & 0x20000]).toEqual([
      6, 0, 0, 0,
    ]);
  });

  // biome-ignore format: a table
  it.each([
    ['CLI',                    'fa',     0,      13],
    ['PUSHF',                  '9c',     0,      13],
    ['INT',                    'cd80',   0,      13],
    ['IRET',                   'cf',     0,      13],
    ['LLDT',                   '0f00d0', 0,      6],
    ['HLT',                    'f4',     0x3000, 13],
    ['PUSHF, with IOPL 3',     '9c0f0b', 0x3000, 6],
    ['INT, with IOPL 3',       'cd80',   0x3000, 0x80],
    ['INT3',                   'cc',     0,      3],
    ['VEX',                    'c4e260f2c1cc', 0, 6],
    ['LES, and INT3',          'c406000033c0cc', 0, 3],
    ['beyond 64 KiB',          '67a100000100', 0, 13],
  ])('%s', (_, code, iopl, vector) => {
    expect(virtual(0x20002 | iopl, code).cpu.state.get(RDX)).toBe(vector);
  });
});

describe('16-bit code', () => {
  it('is called, and returns with 16 bits', () => {
    const machine = protectedMachine();
    // MOV AX, 1234; 66 RETF
    load(machine, 'b83412 66cb', 0x5000);
    load(machine, '9a005000006000 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect([machine.cpu.state.get(RAX), machine.cpu.state.get(CS_BASE)]).toEqual([0x1234, 0]);
  });

  it('interrupts through a gate of its own', () => {
    const machine = protectedMachine();
    words(machine).setBigUint64(IDT + 0x80 * 8, 0x0000860000600000n | 0x5000n, true);
    // MOV AX, SP; HLT
    load(machine, '89e0 f4', 0x5000);
    const before = machine.cpu.state.get(RSP);
    load(machine, 'cd80');
    machine.cpu.run(100);
    expect(machine.cpu.state.get(RSP)).toBe(before - 6);
    expect(machine.cpu.state.get(RAX) & 0xffff).toBe((before - 6) & 0xffff);
  });
});
