/** What 16-bit code in segments of 64 KiB has of its own, as a processor does it. */
import { describe, expect, it } from 'vitest';
import { AT_END, choice, CODE_SEGMENTS, loadSegments, offsetIn, useSegments } from '../../cpu-check/segmented.ts';
import { EXIT_EXCEPTION } from './bus.ts';
import { CS_BASE, DS, FCW, FPR, FSW, LINEAR_RIP, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, SS } from './state.ts';
import { type BareMachine, bareMachine, setRip } from './testing/bare-machine.ts';

const IP = 0xf000;
const REGISTERS = { ax: RAX, cx: RCX, dx: RDX, bx: RBX, sp: RSP, bp: RBP, si: RSI, di: RDI };
type Registers = Partial<Record<keyof typeof REGISTERS, number>>;

function machineWith(registers: Registers): BareMachine {
  const machine = bareMachine(16, 0);
  loadSegments(machine);
  useSegments(machine, AT_END);
  machine.cpu.interceptExceptions = -1;
  for (const [name, value] of Object.entries(registers)) {
    machine.cpu.state.setPair(REGISTERS[name as keyof typeof REGISTERS], value, 0);
  }
  return machine;
}

const at = (segment: number, offset: number): number => 0x800000 - offsetIn(segment, 0x800000) + offset;

/** Runs one instruction; its exception or 'done', and the offset that it ends at. */
function run({ cpu, ram }: BareMachine, hex: string, ip = IP): string {
  ram.set(Buffer.from(hex.replaceAll(' ', ''), 'hex'), CODE_SEGMENTS[1] + ip);
  setRip(cpu, CODE_SEGMENTS[1] + ip);
  cpu.hostDebug.singleStep = true;
  const why = cpu.run(1);
  const end = (cpu.state.get(LINEAR_RIP) - cpu.state.get(CS_BASE)).toString(16);
  return why === EXIT_EXCEPTION ? `${cpu.intercepted.vector} at ${end}` : `done, ${end}`;
}

describe('relative jumps of 16-bit code', () => {
  // biome-ignore format: a table
  it.each([
    ['wrap around the end of the segment',            'eb10',         0xfffa, 'done, c'],
    ['wrap around it into another page',              'e9f0ff',       0x0003, 'done, fff6'],
    ['wrap around its beginning',                     'ebe0',         0x0010, 'done, fff2'],
    ['wrap around when conditional',                  '7310',         0xfff8, 'done, a'],
    ['of 32 bits fault behind the end',               '66e900100000', 0xf800, '13 at f800'],
    ['of 32 bits reach the rest',                     '66e900100000', 0x1000, 'done, 2006'],
    ['fault only if taken',                           '660f8200100000', 0xf800, 'done, f807'],
  ])('%s', (_, code, ip, expected) => {
    expect(run(machineWith({}), code, ip)).toBe(expected);
  });

  it('that fault leave the stack and the counter alone', () => {
    const machine = machineWith({ sp: 0x12345678, cx: 5 });
    expect(run(machine, '66e800100000', 0xf800)).toBe('13 at f800');
    expect(machine.cpu.state.get(RSP)).toBe(0x12345678);
    // A fault of the stack comes first.
    useSegments(machine, choice(AT_END, 1, 0));
    expect(run(machine, '66e800100000', 0xf800)).toBe('12 at f800');
    // The same of a register's target.
    expect(run(machineWith({ bx: 0x10000 }), '66ffe3')).toBe(`13 at ${IP.toString(16)}`);
    expect(run(machineWith({ bx: 0xffff1234 | 0 }), 'ffe3')).toBe('done, 1234');
  });
});

describe('the stack of 16-bit code', () => {
  it('is left by LEAVE with the upper half of ESP as it was', () => {
    const machine = machineWith({ sp: 0x12345678, bp: 0x43211000 });
    machine.ram.set([0xcd, 0xab], at(SS, 0x1000));
    expect(run(machine, 'c9')).toBe('done, f001');
    expect([machine.cpu.state.get(RSP), machine.cpu.state.get(RBP)]).toEqual([0x12341002, 0x4321abcd]);
  });

  it('gets frames by ENTER that wrap around, the upper half of ESP being left', () => {
    const machine = machineWith({ sp: 0x12340002, bp: 0x43211000 });
    expect(run(machine, 'c8100001')).toBe('done, f004');
    expect([machine.cpu.state.get(RSP), machine.cpu.state.get(RBP)]).toEqual([0x1234ffee, 0x43210000]);
    expect([...machine.ram.subarray(at(SS, 0), at(SS, 2))]).toEqual([0x00, 0x10]);
  });

  it('must be writable where ENTER leaves it', () => {
    const machine = machineWith({ sp: 0x000b, bp: 0x1000 });
    expect(run(machine, 'c80a0000')).toBe('12 at f000');
    expect(machine.cpu.state.get(RSP)).toBe(0x000b);
  });

  it('is popped by POPA up to the fault', () => {
    const machine = machineWith({ sp: 0xfff1, ax: 1, cx: 2, di: 3 });
    expect(run(machine, '61')).toBe('12 at f000');
    const { state } = machine.cpu;
    expect([state.get(RSP), state.get(RAX), state.get(RCX), state.get(RDI)]).toEqual([0xfff1, 1, 0, 0]);
  });
});

describe('a frame that faults in the middle', () => {
  it('has pushed what comes before', () => {
    // With SP alone the first load would be good; with EBP as it is now it isn't.
    const machine = machineWith({ sp: 0x1000, bp: 0x20001234 });
    useSegments(machine, choice(AT_END, 1, 0));
    expect(run(machine, 'c8100002')).toBe('12 at f000');
    expect([...machine.ram.subarray(at(SS, 0xffc), at(SS, 0x1000))]).toEqual([0, 0, 0x34, 0x12]);
    expect(machine.cpu.state.get(RSP)).toBe(0x1000);
  });
});

describe('at the end of a segment', () => {
  it('PUNPCKLBW of MMX reads four bytes', () => {
    const machine = machineWith({});
    machine.ram.set([1, 2, 3, 4], at(DS, 0xfffc));
    expect(run(machine, '0f6016fcff')).toBe('done, f005');
    expect(machine.cpu.state.big(FPR + 2 * 16)).toBe(0x0400030002000100n);
    expect(run(machineWith({}), '0f6016fdff')).toBe('13 at f000');
  });

  it('80 bits of x87 wrap around between significand and exponent', () => {
    const machine = machineWith({});
    machine.ram.set([0, 0, 0, 0, 0, 0, 0, 0x80], at(DS, 0xfff8));
    machine.ram.set([0xff, 0x3f], at(DS, 0));
    // FLD1's number.
    expect(run(machine, 'db2ef8ff')).toBe('done, f004');
    expect(machine.cpu.state.big(FPR + 7 * 16)).toBe(1n << 63n);
    expect(machine.cpu.state.get(FPR + 7 * 16 + 8)).toBe(0x3fff);
    expect(run(machineWith({}), 'db2ef9ff')).toBe('13 at f000');
  });

  it('a store of x87 that faults changes no flag', () => {
    const machine = machineWith({});
    machine.cpu.state.set(FCW, 0x37f);
    machine.cpu.state.set(FSW, 0x200);
    expect(run(machine, 'db3ef9ff')).toBe('13 at f000');
    expect(machine.cpu.state.get(FSW)).toBe(0x200);
    // Neither does one that an exception stops.
    machine.cpu.state.set(FCW, 0x340);
    expect(run(machine, 'd91efdff')).toBe('13 at f000');
    expect(machine.cpu.state.get(FSW)).toBe(0x200);
  });

  it('the control word has no reserved bits after FLDENV', () => {
    const machine = machineWith({});
    machine.ram.fill(0xff, at(DS, 0x100), at(DS, 0x10e));
    expect(run(machine, 'd9260001')).toBe('done, f004');
    expect(machine.cpu.state.get(FCW)).toBe(0x1f7f);
  });

  it("BOUND's second number wraps around", () => {
    const machine = machineWith({ bx: 5 });
    machine.ram.set([1, 0], at(DS, 0xfffe));
    machine.ram.set([6, 0], at(DS, 0));
    expect(run(machine, '621efeff')).toBe('done, f004');
    machine.ram.set([4, 0], at(DS, 0));
    expect(run(machine, '621efeff')).toBe('5 at f000');
  });

  it('MASKMOVDQU faults even under a mask of zeros, and wraps around between its halves', () => {
    expect(run(machineWith({ di: 0xfff9 }), '660ff7c1')).toBe('13 at f000');
    expect(run(machineWith({ di: 0xfff8 }), '660ff7c1')).toBe('done, f004');
  });
});
