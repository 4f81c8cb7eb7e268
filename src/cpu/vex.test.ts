/** What VEX is, and what it isn't: LES and LDS, nothing in real mode. What its instructions compute is `native.test.ts`'s. */
import { describe, expect, it } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HALT } from './bus.ts';
import { Decoder, MODE_64 } from './decoder.ts';
import { ALL_INSTRUCTIONS } from './features.ts';
import { FORMS } from './interpreter-module.ts';
import { initialize, startUp } from './real-mode.ts';
import { selectorOf } from './segments.ts';
import { DS, ES, RAX, RBX, RCX, RDX, RSI } from './state.ts';
import { type BareMachine, setRip } from './testing/bare-machine.ts';
import { CODE, load, prepared } from './testing/prepared-machine.ts';
import { DATA, protectedMachine } from './testing/protected-machine.ts';

const ANDN = 'c4e260f2c1';

/** EAX after `hex` with EBX = ff, ECX = 1234; or the exception. */
function result(machine: BareMachine, hex: string, at = CODE): string {
  const { cpu } = machine;
  load(machine, `${hex} f4`, at);
  for (const [register, value] of [
    [RAX, 0x5555],
    [RBX, 0xff],
    [RCX, 0x1234],
    [RDX, 0x7777],
  ])
    cpu.state.setPair(register, value, 0);
  cpu.interceptExceptions = -1;
  const why = cpu.run(100);
  if (why === EXIT_EXCEPTION) return `exception ${cpu.intercepted.vector}`;
  return why === EXIT_HALT ? cpu.state.get(RAX).toString(16) : `exit ${why}`;
}

describe('VEX in 64-bit mode', () => {
  // biome-ignore format: a table
  it.each([
    ['ANDN EAX, EBX, ECX',           'c4e260f2c1',      '1200'],
    ['with a segment and 67',        '3e67c4e260f2c1',  '1200'],
    ['66 before it',                 '66c4e260f2c1',    'exception 6'],
    ['F2 before it',                 'f2c4e260f2c1',    'exception 6'],
    ['F3 before it',                 'f3c4e260f2c1',    'exception 6'],
    ['LOCK before it',               'f0c4e260f2c1',    'exception 6'],
    ['LOCK, and memory',             'f0c4e260f206',    'exception 6'],
    ['REX before it',                '40c4e260f2c1',    'exception 6'],
    ['REX before another prefix',    '403ec4e260f2c1',  '1200'],
    ['L',                            'c4e264f2c1',      'exception 6'],
    ['66 as its prefix',             'c4e261f2c1',      'exception 6'],
    ['no map',                       'c4e060f2c1',      'exception 6'],
    ['a map that is none',           'c4e460f2c1',      'exception 6'],
    ['an opcode that is none',       'c4e260f1c1',      'exception 6'],
    ['a legacy opcode of its map',   'c4e26000c1',      'exception 6'],
    ['an empty digit',               'c4e278f3c1',      'exception 6'],
    ['RORX EAX, ECX, 4',             'c4e37bf0c104',    '40000123'],
    ['RORX, and a register in vvvv', 'c4e373f0c104',    'exception 6'],
    ['two bytes: VADDPS',            'c5e058c1',        'exception 6'],
    ['two bytes: ADD',               'c5e000c1',        'exception 6'],
    ['VZEROUPPER',                   'c5f877',          'exception 6'],
    ['EVEX',                         '62f17c4858c1',    'exception 6'],
  ])('%s', (_, hex, expected) => {
    expect(result(prepared(), hex)).toBe(expected);
  });

  it('is decoded across a page boundary', () => {
    for (let before = 1; before < 5; before++) {
      const machine = prepared();
      const at = CODE + 0x1000 - before;
      setRip(machine.cpu, at);
      expect(result(machine, ANDN, at)).toBe('1200');
    }
  });

  it('has no instructions but these: no AVX behind any map, prefix, W and L', () => {
    const decoder = new Decoder(FORMS.rows, { invalid: 0, unavailable: 0 }, new ArrayBuffer(64));
    const found = new Set<string>();
    const bytes = new Uint8Array(16);
    const all = (...head: readonly number[]) => {
      bytes.set(head);
      for (let opcode = 0; opcode < 256; opcode++) {
        bytes[head.length] = opcode;
        for (let digit = 0; digit < 8; digit++) {
          bytes[head.length + 1] = 0xc0 | (digit << 3);
          decoder.decode(bytes, 0, 16, MODE_64, 0, 0);
          if (decoder.row !== null) found.add(decoder.row.name);
        }
      }
    };
    for (let last = 0; last < 8; last++) {
      all(0xc5, 0xf8 | last);
      for (let map = 0; map < 32; map++) for (const wide of [0, 0x80]) all(0xc4, 0xe0 | map, 0x78 | wide | last);
    }
    expect([...found].sort()).toEqual('andn bextr blsi blsmsk blsr bzhi mulx pdep pext rorx sarx shlx shrx'.split(' '));
  });
});

describe('C4 and C5 in protected mode of 32 bits', () => {
  // biome-ignore format: a table
  it.each([
    ['VEX, if ModRM would name a register', 'c4e260f2c1', '1200'],
    ['VEX whose W is ignored',              'c4e2e0f2c1', '1200'],
    ['VEX whose B is ignored',              'c4c260f2c1', '1200'],
    ['VEX whose highest vvvv is ignored',   'c4e220f2c1', '1200'],
    ['but not where vvvv must be 1111',     'c4e33bf0c104', 'exception 6'],
    ['66 before it',                        '66c4e260f2c1', 'exception 6'],
    ['C5, with registers',                  'c5e058c1', 'exception 6'],
  ])('%s', (_, hex, expected) => {
    expect(result(protectedMachine(), hex)).toBe(expected);
  });

  it.each([
    ['LES', 'c4', ES],
    ['LDS', 'c5', DS],
  ])('are %s with memory', (_, opcode, index) => {
    const machine = protectedMachine();
    machine.ram.set([0x78, 0x56, 0x34, 0x12, 0x38, 0], DATA);
    machine.cpu.state.setPair(RSI, DATA, 0);
    // LES EAX, [ESI], and with 66
    expect(result(machine, `${opcode}06`)).toBe('12345678');
    expect(selectorOf(machine.cpu, index)).toBe(0x38);
    machine.ram.set([0x38, 0], DATA + 2);
    setRip(machine.cpu, CODE);
    // Of the segment that was loaded: from its beginning.
    if (index === DS) machine.cpu.state.setPair(RSI, 0, 0);
    expect(result(machine, `66${opcode}06`)).toBe('5678');
  });
});

describe('C4 and C5 in code of 16 bits', () => {
  it('are VEX in protected mode, with operands of 32 bits', () => {
    const machine = protectedMachine();
    load(machine, `${ANDN} f4`, 0x5000);
    // JMP 60:5000
    expect(result(machine, 'ea005000006000')).toBe('1200');
  });

  it('are LES and LDS in real mode, and #UD with registers', () => {
    const started = (): BareMachine => {
      const machine = prepared();
      initialize(machine.cpu, 0);
      startUp(machine.cpu, 8);
      machine.ram.set([0x34, 0x12, 0x00, 0x09], 0x10);
      return machine;
    };
    const machine = started();
    // LES AX, [10]
    expect(result(machine, 'c4061000', 0x8000)).toBe('1234');
    expect(selectorOf(machine.cpu, ES)).toBe(0x900);
    for (const hex of [ANDN, 'c5e058c1']) expect(result(started(), hex, 0x8000)).toBe('exception 6');
  });
});

describe('BMI that CPUID does not announce', () => {
  const without = (...features: readonly string[]): BareMachine => {
    const machine = prepared();
    machine.cpu.useFeatures({
      instructions: new Set([...ALL_INSTRUCTIONS].filter((name) => !features.includes(name))),
    });
    return machine;
  };

  // biome-ignore format: a table
  it.each([
    ['ANDN, without BMI1',                          'bmi1', 'c4e260f2c1',      'exception 6'],
    ['ANDN, without BMI2',                          'bmi2', 'c4e260f2c1',      '1200'],
    ['BZHI, without BMI2',                          'bmi2', 'c4e260f5c1',      'exception 6'],
    ['RORX, without BMI2',                          'bmi2', 'c4e37bf0c104',    'exception 6'],
    ['RORX, without BMI1',                          'bmi1', 'c4e37bf0c104',    '40000123'],
    ['TZCNT of 0, with BMI1',                       'bmi2', '31c9 f30fbcc1',   '20'],
    ['TZCNT of 0, which is BSF then',               'bmi1', '31c9 f30fbcc1',   '5555'],
  ])('%s', (_, feature, hex, expected) => {
    expect(result(without(feature), hex)).toBe(expected);
  });
});
