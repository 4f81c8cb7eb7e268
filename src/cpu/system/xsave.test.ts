/** XSAVE and its like: what is saved, what comes back, what is refused. */
import { describe, expect, it } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HALT } from '../bus.ts';
import { CR4, FCW, FTAGS, MXCSR, PKRU, RAX, RBX, RDX, XCR0, XMM } from '../state.ts';
import { type BareMachine, setRip } from '../testing/bare-machine.ts';
import { CODE, load, prepared } from '../testing/prepared-machine.ts';

const AREA = 0x300000;
const [XSAVE, XRSTOR, XGETBV, XSETBV] = ['0fae23', '0fae2b', '0f01d0', '0f01d1'];

function machineWith(xcr0: number, asked: number, osxsave = true): BareMachine {
  const machine = prepared();
  const { state } = machine.cpu;
  if (osxsave) state.set(CR4, state.get(CR4) | (1 << 18));
  state.set(XCR0, xcr0);
  state.setPair(RAX, asked, 0);
  state.setPair(RDX, 0, 0);
  state.setPair(RBX, AREA, 0);
  machine.cpu.xcr0Allowed = 0x203;
  return machine;
}

function outcome(machine: BareMachine, code: string): string {
  load(machine, `${code} f4`);
  setRip(machine.cpu, CODE);
  machine.cpu.interceptExceptions = -1;
  const why = machine.cpu.run(100);
  return why === EXIT_EXCEPTION ? String(machine.cpu.intercepted.vector) : why === EXIT_HALT ? 'none' : `exit ${why}`;
}

const area = ({ ram }: BareMachine) => new DataView(ram.buffer, ram.byteOffset + AREA);

describe('XSAVE and XRSTOR', () => {
  it('take along what is on and asked for', () => {
    const machine = machineWith(0x203, 0x202);
    const { state } = machine.cpu;
    state.setPair(XMM + 16, 0x1234, 0x5678);
    state.set(MXCSR, 0x1fa0);
    state.set(PKRU, 0x55);
    area(machine).setUint16(0, 0xabcd, true);
    expect(outcome(machine, XSAVE)).toBe('none');
    // x87's part is left alone.
    expect([area(machine).getUint16(0, true), area(machine).getUint32(512, true)]).toEqual([0xabcd, 0x202]);
    expect([
      area(machine).getUint32(176, true),
      area(machine).getUint32(24, true),
      area(machine).getUint32(576, true),
    ]).toEqual([0x1234, 0x1fa0, 0x55]);
    state.setPair(XMM + 16, 0, 0);
    state.set(MXCSR, 0x1f80);
    state.set(PKRU, 0);
    expect(outcome(machine, XRSTOR)).toBe('none');
    expect([state.get(XMM + 16), state.high(XMM + 16), state.get(MXCSR), state.get(PKRU)]).toEqual([
      0x1234, 0x5678, 0x1fa0, 0x55,
    ]);
  });

  it('give initial values to what the area has not', () => {
    const machine = machineWith(3, 3);
    const { state } = machine.cpu;
    state.set(FCW, 0x27f);
    state.set(FTAGS, 255);
    state.setPair(XMM, 1, 1);
    area(machine).setUint32(24, 0x1f80, true);
    expect(outcome(machine, XRSTOR)).toBe('none');
    expect([state.get(FCW), state.get(FTAGS), state.get(XMM)]).toEqual([0x37f, 0, 0]);
  });

  // biome-ignore format: a table
  it.each<[string, string, (machine: BareMachine) => void, string]>([
    ['without CR4.OSXSAVE',               XSAVE,  (m) => m.cpu.state.set(CR4, 0x6a0),            '6'],
    ['an area at an odd place',           XSAVE,  (m) => m.cpu.state.setPair(RBX, AREA + 32, 0), '13'],
    ['a component that is off',           XRSTOR, (m) => area(m).setUint32(512, 4, true),         '13'],
    ['the compacted form',                XRSTOR, (m) => area(m).setUint32(524, 1 << 31, true),   '13'],
    ['reserved bits of the header',       XRSTOR, (m) => area(m).setUint32(528, 1, true),         '13'],
    ['reserved bits of MXCSR',            XRSTOR, (m) => area(m).setUint32(24, 1 << 16, true),    '13'],
    ['an XCR0 without x87',               XSETBV, (m) => m.cpu.state.setPair(RAX, 2, 0),          '13'],
    ['an XCR0 with AVX',                  XSETBV, (m) => m.cpu.state.setPair(RAX, 7, 0),          '13'],
    ['another register than XCR0',        XGETBV, (m) => m.cpu.state.setPair(8, 1, 0),            '13'],
  ])('%s is refused', (_, code, change, expected) => {
    const machine = machineWith(3, 3);
    change(machine);
    expect(outcome(machine, code)).toBe(expected);
  });

  it('know XCR0 as it was set', () => {
    const machine = machineWith(1, 0x203);
    machine.cpu.state.setPair(8, 0, 0);
    expect(outcome(machine, `${XSETBV} 31c0 ${XGETBV}`)).toBe('none');
    expect(machine.cpu.state.get(RAX)).toBe(0x203);
  });
});
