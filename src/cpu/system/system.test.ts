/** What a kernel relies on: faults with their codes, rights by rings and bits, traps. */
import { describe, expect, it } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HALT } from '../bus.ts';
import { segmentsChanged } from '../segments.ts';
import {
  CPL,
  CR0,
  CR4,
  CS,
  EFER,
  FLAGS,
  LINEAR_RIP,
  MXCSR,
  PKRU,
  RAX,
  RBX,
  RDX,
  RSP,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
  XMM,
} from '../state.ts';
import { type BareMachine, setRip } from '../testing/bare-machine.ts';
import { CODE, GDT, HANDLER, IDT, load, prepared, stackWord, TSS } from '../testing/prepared-machine.ts';

/** The exception that code ends with, as `vector:error`, or 'none' when it reaches its HLT. */
function outcome(machine: BareMachine, hex: string): string {
  load(machine, `${hex} f4`);
  machine.cpu.interceptExceptions = -1;
  const why = machine.cpu.run(1000);
  if (why !== EXIT_EXCEPTION) return why === EXIT_HALT ? 'none' : `exit ${why}`;
  const { vector, error } = machine.cpu.intercepted;
  return `${vector}:${error.toString(16)}`;
}

const descriptor = ({ ram }: BareMachine, index: number, value: bigint) =>
  new DataView(ram.buffer, ram.byteOffset).setBigUint64(GDT + index * 8, value, true);

describe('faults', () => {
  // biome-ignore format: a table
  it.each([
    ['LOCK with a register destination',        0, 'f00fc1c8',                 '6:0'],
    ['LOCK with CMP',                           0, 'f0390424',                 '6:0'],
    ['LOCK ADD in memory',                      0, 'f0010424',                 'none'],
    ['a load from a non-canonical address',     0, '48b80000000000008000 488b00', '13:0'],
    ['a push to a non-canonical stack',         0, '48bc0000000000008000 50',  '12:0'],
    ['a load by RBP from a non-canonical one',  0, '48bd0000000000008000 488b4500', '12:0'],
    ['LEAVE with a non-canonical RBP',          0, '48bd0000000000008000 c9',  '12:0'],
    ['IRET to a non-canonical address',         0, '6a18 54 6a02 6a10 48b80000000000008000 50 48cf', '13:0'],
    ['MOV to CS',                               0, '8ec8',                     '6:0'],
    ['DS with a selector beyond the GDT',       0, 'b800ff0000 8ed8',          '13:ff00'],
    ['DS with the code segment of 64 bits',     0, 'b810000000 8ed8',          'none'],
    ['SS with a null selector in ring 0',       0, '31c0 8ed0',                'none'],
    ['SS with a null selector in ring 3',       3, '31c0 8ed0',                '13:0'],
    ['SS with a code segment',                  0, 'b810000000 8ed0',          '13:10'],
    ['DS with data of ring 0 in ring 3',        3, 'b818000000 8ed8',          '13:18'],
    ['MOV CR0 in ring 3',                       3, '0f20c0',                   '13:0'],
    ['MOV from CR1',                            0, '0f20c8',                   '6:0'],
    ['CR0.PG without PE',                       0, 'b800000080 0f22c0',        '13:0'],
    ['CR0 with bits above 32',                  0, '48b83300058001000000 0f22c0', '13:0'],
    ['CR4 with a bit that is not built',        0, '0f20e0 0fbae80d 0f22e0',   '13:0'],
    ['CR4 without PAE in long mode',            0, '31c0 0f22e0',              '13:0'],
    ['CR4.PCIDE with PCID bits in CR3',         0, 'b801000000 0f22d8 0f20e0 0fbae811 0f22e0', '13:0'],
    ['EFER with a bit that is not built',       0, 'b9800000c0 0f32 0fbae802 0f30', '13:0'],
    ['EFER.LME changed while paging is on',     0, 'b9800000c0 0f32 0fbaf008 0f30', '13:0'],
    ['LSTAR with a non-canonical address',      0, 'b9820000c0 31c0 ba00800000 0f30', '13:0'],
    ['TSC_AUX beyond 32 bits',                  0, 'b9030100c0 31c0 ba01000000 0f30', '13:0'],
    ['PAT with a reserved type',                0, 'b977020000 b802000000 31d2 0f30', '13:0'],
    ['DR6 beyond 32 bits',                      0, '48b80000000001000000 0f23f0', '13:0'],
    ['DR8',                                     0, '440f21c0',                 '6:0'],
    ['HLT in ring 3',                           3, 'f4',                       '13:0'],
    ['CLI in ring 3',                           3, 'fa',                       '13:0'],
    ['INVLPG in ring 3',                        3, '0f0138',                   '13:0'],
    ['INVLPG of a register',                    0, '0f01fa',                   '6:0'],
    ['WRMSR in ring 3',                         3, '0f30',                     '13:0'],
    ['CLAC in ring 3',                          3, '0f01ca',                   '6:0'],
    ['RDPKRU without CR4.PKE',                  0, '31c9 0f01ee',              '6:0'],
    ['RDFSBASE without CR4.FSGSBASE',           0, 'f3480faec0',               '6:0'],
    ['SWAPGS in ring 3',                        3, '0f01f8',                   '13:0'],
    ['SYSRET in ring 3',                        3, '480f07',                   '13:0'],
    ['MONITOR',                                 0, '0f01c8',                   '6:0'],
    ['XGETBV',                                  0, '31c9 0f01d0',              '6:0'],
    ['MOVAPS of a misaligned address',          0, '0f28442401',               '13:0'],
    ['CMPXCHG16B of a misaligned address',      0, '480fc74c2408',             '13:0'],
    ['FXSAVE to a misaligned address',          0, '0fae442408',               '13:0'],
    ['LDMXCSR with reserved bits',              0, 'c7042400000100 0fae1424',  '13:0'],
    ['LTR with a null selector',                0, '31c0 0f00d8',              '13:0'],
    ['LLDT with a null selector',               0, '31c0 0f00d0',              'none'],
    ['IN in ring 3',                            3, 'e460',                     '13:0'],
    ['a far jump to a null selector',           0, 'c7042400000000 c744240400000000 ff2c24', '13:0'],
    ['a far jump to data',                      0, 'c7042400001000 66c74424041800 ff2c24', '13:18'],
  ])('%s in ring %i', (_what, ring, hex, expected) => {
    expect(outcome(prepared(ring), hex)).toBe(expected);
  });

  it('a segment that is not present is #NP, a stack segment #SS', () => {
    const machine = prepared();
    descriptor(machine, 8, 0x00cf13000000ffffn);
    expect(outcome(machine, 'b840000000 8ed8')).toBe('11:40');
    setRip(machine.cpu, CODE);
    expect(outcome(machine, 'b840000000 8ed0')).toBe('12:40');
  });

  it('INT n needs the gate to be present and its DPL', () => {
    const machine = prepared(3);
    const view = new DataView(machine.ram.buffer, machine.ram.byteOffset);
    view.setUint8(IDT + 0x80 * 16 + 5, 0x8e);
    expect(outcome(machine, 'cd80')).toBe('13:402');
    view.setUint8(IDT + 0x80 * 16 + 5, 0x6e);
    setRip(machine.cpu, CODE);
    expect(outcome(machine, 'cd80')).toBe('11:402');
  });

  it('INT1 does not ask for the DPL of its gate', () => {
    const machine = prepared(3);
    machine.ram[IDT + 16 + 5] = 0x8e;
    load(machine, 'f1');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(1);
  });

  it('a fault of a fault tells EXT', () => {
    const machine = prepared();
    machine.ram[IDT + 14 * 16 + 5] = 0x0e;
    machine.bus.absent.add(0x301);
    load(machine, '8b042500103000');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(8);
    machine.ram[IDT + 6 * 16 + 5] = 0x0e;
    setRip(machine.cpu, CODE);
    load(machine, '0f0b');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(11);
    expect(stackWord(machine, 0)).toBe(BigInt(6 * 8 + 3));
  });
});

describe('the FPU', () => {
  // biome-ignore format: a table
  it.each([
    ['SSE under CR0.TS',           0x8005003b, 0x6a0, '0f28c1',     '7:0'],
    ['SSE under CR0.EM',           0x80050037, 0x6a0, '0f28c1',     '6:0'],
    ['SSE without CR4.OSFXSR',     0x80050033, 0x0a0, '0f28c1',     '6:0'],
    ['x87 under CR0.TS',           0x8005003b, 0x6a0, 'd9e8',       '7:0'],
    ['x87 under CR0.EM',           0x80050037, 0x6a0, 'd9e8',       '7:0'],
    ['x87 without CR4.OSFXSR',     0x80050033, 0x0a0, 'd9e8',       'none'],
    ['MMX under CR0.TS',           0x8005003b, 0x6a0, '0f77',       '7:0'],
    ['MMX under CR0.EM',           0x80050037, 0x6a0, '0f77',       '6:0'],
    ['MMX without CR4.OSFXSR',     0x80050033, 0x0a0, '0f77',       'none'],
    ['FXSAVE under CR0.TS',        0x8005003b, 0x6a0, '0fae0424',   '7:0'],
    ['FWAIT under CR0.TS and MP',  0x8005003b, 0x6a0, '9b',         '7:0'],
    ['FWAIT under CR0.TS',         0x80050039, 0x6a0, '9b',         'none'],
    ['MOVNTI under CR0.TS',        0x8005003b, 0x6a0, '0fc30424',   'none'],
    ['SFENCE under CR0.TS',        0x8005003b, 0x6a0, '0faef8',     'none'],
  ])('%s', (_what, cr0, cr4, hex, expected) => {
    const machine = prepared();
    machine.cpu.state.set(CR0, cr0 | 0);
    machine.cpu.state.set(CR4, cr4);
    machine.cpu.modeChanged();
    machine.cpu.state.setPair(RSP, 0x1ff000, 0);
    expect(outcome(machine, hex)).toBe(expected);
  });

  it('is back after CLTS, in code that was decoded without it', () => {
    const machine = prepared();
    // inc eax; xorps xmm0, xmm0; hlt. The handler of #NM: clts; iretq.
    load(machine, '0f06 48cf', HANDLER + 7 * 16);
    load(machine, 'ffc0 0f57c0 f4');
    for (const round of [1, 2]) {
      machine.cpu.state.set(CR0, 0x8005003b | 0);
      machine.cpu.modeChanged();
      machine.cpu.state.setPair(XMM, 5, 5);
      setRip(machine.cpu, CODE);
      expect(machine.cpu.run(100)).toBe(EXIT_HALT);
      expect(machine.cpu.state.get(RAX)).toBe(round);
      expect(machine.cpu.state.big(XMM)).toBe(0n);
    }
  });

  it('raises #XM where MXCSR does not mask it, or #UD without CR4.OSXMMEXCPT', () => {
    const machine = prepared();
    machine.cpu.state.set(MXCSR, 0x1d80);
    // 1.0 / 0.0
    const code = '48b8000000000000f03f 66480f6ec0 0f57c9 f20f5ec1';
    expect(outcome(machine, code)).toBe('19:0');
    expect(machine.cpu.state.get(MXCSR)).toBe(0x1d84);
    machine.cpu.state.set(CR4, 0x2a0);
    setRip(machine.cpu, CODE);
    expect(outcome(machine, code)).toBe('6:0');
  });
});

describe('alignment checks', () => {
  it('are for ring 3 with EFLAGS.AC and CR0.AM', () => {
    const machine = prepared(3);
    const { cpu } = machine;
    cpu.state.set(CR0, cpu.state.get(CR0) | (1 << 18));
    cpu.state.set(FLAGS, 1 << 18);
    cpu.modeChanged();
    expect(outcome(machine, '8b442401')).toBe('17:0');
    setRip(cpu, CODE);
    expect(outcome(machine, '8b442404 8a442401 48cf')).toBe('13:0');
    cpu.state.set(FLAGS, 0);
    cpu.modeChanged();
    setRip(cpu, CODE);
    expect(outcome(machine, '8b442401')).toBe('13:0');
    expect(cpu.state.get(LINEAR_RIP)).toBe(CODE + 4);
  });
});

describe('ports', () => {
  it('are allowed by IOPL or the bit map of the task', () => {
    const machine = prepared(3);
    const { cpu, ram } = machine;
    const view = new DataView(ram.buffer, ram.byteOffset);
    view.setUint16(TSS + 102, 104, true);
    cpu.state.set(SEGMENTS + 7 * SEGMENT_BYTES + 8, 104 + 32);
    ram.fill(0xff, TSS + 104, TSS + 104 + 40);
    ram[TSS + 104 + 12] = 0xfe;
    expect(outcome(machine, 'e460 e461')).toBe('13:0');
    expect(cpu.state.get(LINEAR_RIP)).toBe(CODE + 2);
    setRip(cpu, CODE);
    // Two bytes need two bits.
    expect(outcome(machine, '66e560')).toBe('13:0');
    cpu.state.set(FLAGS, 3 << 12);
    setRip(cpu, CODE);
    expect(outcome(machine, '66e561')).toBe('13:0');
    expect(cpu.state.get(LINEAR_RIP)).toBe(CODE + 3);
  });
});

describe('UMIP', () => {
  it('keeps the tables from ring 3', () => {
    for (const hex of ['0f010424', '0f014c2400', '0f00c0', '0f00c8', '0f01e0']) {
      const machine = prepared(3);
      expect(outcome(machine, `${hex} 0f0b`)).toBe('6:0');
      machine.cpu.state.set(CR4, 0x6a0 | (1 << 11));
      setRip(machine.cpu, CODE);
      expect(outcome(machine, hex)).toBe('13:0');
    }
  });
});

describe('RDTSC', () => {
  it('is for ring 0 under CR4.TSD', () => {
    const machine = prepared(3);
    expect(outcome(machine, '0f31 0f01f9 0f0b')).toBe('6:0');
    machine.cpu.state.set(CR4, 0x6a4);
    setRip(machine.cpu, CODE);
    expect(outcome(machine, '0f31')).toBe('13:0');
  });
});

describe('PKRU', () => {
  it('is read and written with RCX and RDX of 0', () => {
    const machine = prepared();
    machine.cpu.state.set(CR4, 0x6a0 | (1 << 22));
    expect(outcome(machine, '31c9 31d2 b834120000 0f01ef 31c0 0f01ee')).toBe('none');
    expect(machine.cpu.state.get(RAX)).toBe(0x1234);
    expect(machine.cpu.state.get(PKRU)).toBe(0x1234);
    setRip(machine.cpu, CODE);
    expect(outcome(machine, '31d2 b901000000 0f01ef')).toBe('13:0');
  });
});

describe('compatibility and 32-bit code', () => {
  it('are reached by far jumps, and left', () => {
    const machine = prepared();
    const { state } = machine.cpu;
    // ljmp [rsp+...] to 38:CODE+0x100
    load(machine, 'c7442410 00011000 66c74424143800 ff6c2410');
    // 32-bit: inc ebx; pushl 0x10; pushl CODE+0x200; lret
    load(machine, '43 6a10 6800021000 cb', CODE + 0x100);
    load(machine, '4883c302 f4', CODE + 0x200);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RBX)).toBe(3);
    expect(machine.cpu.mode).toBe(2);
  });

  it('start up as a multiboot loader leaves them: PAE, EFER, paging, far jump', () => {
    const machine = prepared();
    const { cpu } = machine;
    const { state } = cpu;
    state.set(CR0, 0x11);
    state.set(CR4, 0);
    state.set(EFER, 0);
    state.set(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES, 0x00c09b00);
    segmentsChanged(cpu);
    // mov eax, cr4; or eax, 0x620; mov cr4, eax; mov ecx, EFER; rdmsr; or eax, 0x101; wrmsr; mov eax, cr0;
    // or eax, 0x80000000; mov cr0, eax; ljmp 10:CODE+0x100
    load(machine, '0f20e0 0d20060000 0f22e0 b9800000c0 0f32 0d01010000 0f30 0f20c0 0d00000080 0f22c0 ea 00011000 1000');
    load(machine, '48ffc3 f4', CODE + 0x100);
    expect(cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RBX)).toBe(1);
    expect(state.get(EFER)).toBe(0x501);
    expect(state.get(CPL)).toBe(0);
  });
});

describe('features', () => {
  it('that CPUID does not announce are undefined', () => {
    const machine = prepared();
    expect(outcome(machine, 'f30fb8c1 0f38f00424')).toBe('none');
    machine.cpu.useCpuid();
    setRip(machine.cpu, CODE);
    expect(outcome(machine, 'f30fb8c1')).toBe('6:0');
    setRip(machine.cpu, CODE);
    expect(outcome(machine, '0f20e0 0fbae815 0f22e0')).toBe('13:0');
  });
});
