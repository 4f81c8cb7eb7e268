/** The stub's commands on the tiny guest, by their packets. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codeImage, makePc, runToEnd, TINY, TINY_OUTPUT } from '../vm/machine/testing/guests.ts';
import { REGISTERS } from './registers.ts';
import { Session } from './testing/session.ts';

const SMP = readFileSync(fileURLToPath(new URL('../../guests/smp/smp.elf', import.meta.url)));
/** Of the tiny guest: functions, and a count that its page fault handler keeps. */
const LONG_MODE = 0x10015e;
const PRINT = 0x1003cc;
const PUT = 0x1003fd;
const PAGE_FAULT = 0x100410;
const FAULTS = 0x100486;
const RSP = 7;
const RIP = 16;
const EFLAGS = 17;

const hex = (value: number): string => value.toString(16);
const numberOf = (name: string): string => hex(REGISTERS.findIndex((r) => r.name === name));
const valueOf = (session: Session, name: string): bigint =>
  BigInt(
    `0x${Buffer.from(session.send(`p${numberOf(name)}`), 'hex')
      .reverse()
      .toString('hex')}`,
  );

describe('a breakpoint', () => {
  it('stops before its instruction, each time, and is told by its kind', () => {
    const session = new Session();
    session.send('qSupported:swbreak+;hwbreak+');
    expect(session.send(`Z1,${hex(LONG_MODE)},1`)).toBe('OK');
    expect(session.send('c')).toBe('T05hwbreak:;thread:1;');
    expect(session.send(`Z0,${hex(PAGE_FAULT)},1`)).toBe('OK');
    // 64 pages that weren't there, and 3 rights that were taken away.
    for (let n = 0; n < 67; n++) {
      expect(session.send('c')).toBe('T05swbreak:;thread:1;');
      expect(session.register(RIP)).toBe(BigInt(PAGE_FAULT));
    }
    expect(session.send('vCont;c')).toBe('W00');
  });

  it('that was taken away stops nobody', () => {
    const session = new Session();
    expect(session.send(`Z0,${hex(PRINT)},1`)).toBe('OK');
    expect(session.send(`Z1,${hex(PRINT)},1`)).toBe('OK');
    expect(session.send(`z1,${hex(PRINT)},1`)).toBe('OK');
    // The other is still there.
    expect(session.send('c')).toBe('T05thread:1;');
    expect(session.send(`z0,${hex(PRINT)},1`)).toBe('OK');
    expect(session.send('c')).toBe('W00');
  });

  it('is at a linear address, whatever else leads to the same memory', () => {
    const session = new Session();
    session.send(`Z0,${hex(LONG_MODE)},1`);
    session.send('c');
    // The page directory's entry for 16 MiB gets the first 2 MiB, in which the guest's code is.
    const alias = 0x1000000;
    session.send('X202040,1:\x83');
    session.send('X202042,2:\0\0');
    const goTo = (address: number) =>
      session.send(`P${hex(RIP)}=${hex(address).padStart(8, '0').match(/../g)!.reverse().join('')}00000000`);
    expect(goTo(alias + LONG_MODE)).toBe('OK');
    session.send(`Z0,${hex(alias + PUT)},1`);
    expect(session.send('c')).toBe('T05thread:1;');
    expect(session.register(RIP)).toBe(BigInt(alias + PUT));
    expect(goTo(PUT)).toBe('OK');
    // It returns to where it was called from.
    expect(session.send('c')).toBe('T05thread:1;');
    expect(session.register(RIP)).toBe(BigInt(alias + PUT));
    expect(session.console.text).toBe('h');
    goTo(LONG_MODE);
    session.send(`z0,${hex(LONG_MODE)},1`);
    expect(session.send('c')).toBe('W00');
    expect(session.console.text).toBe(`h${TINY_OUTPUT}`);
  });

  it('changes no byte of memory, and nothing in how the guest ends', () => {
    const session = new Session();
    session.send(`Z0,${hex(PRINT)},1`);
    session.send(`Z2,${hex(FAULTS)},4`);
    const code = session.send(`m${hex(PRINT)},10`);
    expect(code).toBe(TINY.subarray(PRINT - 0x100000, PRINT - 0x100000 + 16).toString('hex'));
    let stops = 0;
    while (session.send('c').startsWith('T05')) stops++;
    // Once for each character, as `print` is its own loop.
    expect(stops).toBe(67 + 46);
    const { pc } = makePc(TINY, { megabytes: 32 });
    runToEnd(pc);
    expect(hash(session.pc.ram)).toBe(hash(pc.ram));
    expect(session.pc.instructions).toBe(pc.instructions);
    expect(session.pc.vm.verify()).toEqual([]);
  });
});

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

describe('a watchpoint', () => {
  // biome-ignore format: a table
  it.each([
    ['writes',                2, 'watch',  67],
    ['reads',                 3, 'rwatch', 2],
    ['accesses of any kind',  4, 'awatch', 69],
  ])('stops behind %s', (_, type, word, count) => {
    const session = new Session();
    expect(session.send(`Z${type},${hex(FAULTS)},4`)).toBe('OK');
    for (let n = 0; n < count; n++) expect(session.send('c')).toBe(`T05${word}:${hex(FAULTS)};thread:1;`);
    expect(session.send('c')).toBe('W00');
  });

  it('shows what was written', () => {
    const session = new Session();
    session.send(`Z2,${hex(FAULTS)},4`);
    for (const value of ['01000000', '02000000', '03000000']) {
      session.send('c');
      expect(session.send(`m${hex(FAULTS)},4`)).toBe(value);
    }
  });

  it('of many pages is told by where it begins', () => {
    const session = new Session();
    // The handler fills the last of these pages with the tables' entries first.
    session.send('Z2,203ff8,1010');
    expect(session.send('c')).toBe('T05watch:203ff8;thread:1;');
  });
});

describe('a step', () => {
  it('is one instruction', () => {
    const session = new Session();
    session.send(`Z1,${hex(LONG_MODE)},1`);
    session.send('c');
    const before = session.pc.instructions;
    // mov ax, 0x10; mov ds, eax; mov es, eax
    for (const length of [4, 2, 2]) {
      const at = session.register(RIP);
      expect(session.send('s')).toBe('T05thread:1;');
      expect(session.register(RIP) - at).toBe(BigInt(length));
    }
    expect(session.pc.instructions).toBe(before + 3);
  });

  it('of one that faults ends in the handler', () => {
    const session = new Session();
    session.send(`Z0,${hex(PAGE_FAULT)},1`);
    session.send('c');
    // Back to the instruction that touched the page, and from there into the handler once more.
    const frame = Number(session.register(RSP)) + 8;
    const back = Buffer.from(session.send(`m${hex(frame)},8`), 'hex').readBigUInt64LE();
    session.send(`P${hex(RIP)}=${Buffer.from(new BigUint64Array([back]).buffer).toString('hex')}`);
    session.send(`z0,${hex(PAGE_FAULT)},1`);
    expect(session.register(RIP)).toBe(back);
    session.send('vCont;s:1');
    expect(session.register(RIP)).toBe(BigInt(PAGE_FAULT));
  });

  it('goes through a repeated instruction step by step', () => {
    // mov ecx, 3; mov edi, 0x110000; rep stosd; nop
    const session = new Session(
      codeImage([0xb9, 3, 0, 0, 0], [0xbf, 0, 0, 0x11, 0], [0xf3, 0xab], 0x90, [0xb0, 0, 0xe6, 0xf4]),
    );
    session.send('s');
    session.send('s');
    const left: bigint[] = [];
    for (let n = 0; n < 3; n++) {
      session.send('s');
      left.push(session.register(2));
    }
    expect(left).toEqual([2n, 1n, 0n]);
    expect(session.register(RIP)).toBe(0x10001dn - 1n);
  });
});

describe('registers', () => {
  it('all come in the order in which target.xml has them', () => {
    const session = new Session();
    session.send(`Z1,${hex(PUT)},1`);
    session.send('c');
    const all = session.send('g');
    let at = 0;
    for (const [n, { bits }] of REGISTERS.entries()) {
      expect(session.send(`p${hex(n)}`)).toBe(all.slice(at, at + bits / 4));
      at += bits / 4;
    }
    expect(at).toBe(all.length);
    expect(session.send(`G${all}`)).toBe('OK');
    expect(session.send('g')).toBe(all);
    expect([
      valueOf(session, 'cr3'),
      valueOf(session, 'cr0'),
      valueOf(session, 'efer'),
      valueOf(session, 'cs'),
    ]).toEqual([0x200000n, 0x80010011n, 0x500n, 8n]);
  });

  it('are what the guest goes on with', () => {
    const session = new Session();
    session.send(`Z1,${hex(PUT)},1`);
    session.send('c');
    // Another character for the console.
    expect(session.send('P0=5800000000000000')).toBe('OK');
    session.send(`z1,${hex(PUT)},1`);
    expect(session.send('c')).toBe('W00');
    expect(session.console.text).toBe(`X${TINY_OUTPUT.slice(1)}`);
  });

  it('change only by the rules of the instructions that could change them', () => {
    const session = new Session();
    session.send(`Z1,${hex(PUT)},1`);
    session.send('c');
    const set = (name: string, value: string) => session.send(`P${numberOf(name)}=${value}`);
    expect(set('cs', '10000000')).toBe('E16');
    expect(set('cr0', '1100000000000000')).toBe('E16');
    expect(set('cr3', '0010200000000000')).toBe('OK');
    expect(session.register(Number.parseInt(numberOf('cr3'), 16))).toBe(0x201000n);
    expect(set('cr3', '0000200000000000')).toBe('OK');
    expect(set('fs_base', '0000000000000080')).toBe('E16');
    expect(set('fs_base', '000000000080ffff')).toBe('OK');
    expect(set('rip', '0000000000000080')).toBe('E16');
    expect(set('mxcsr', '00000100')).toBe('E16');
    // TF and CF; what POPF can't set stays as it is.
    expect(set('eflags', 'ffffffff')).toBe('OK');
    expect(session.send(`p${hex(EFLAGS)}`)).toBe('d77f2500');
    expect(set('eflags', '02000000')).toBe('OK');
    session.send(`z1,${hex(PUT)},1`);
    expect(session.send('c')).toBe('W00');
  });
});

describe('memory', () => {
  it('is that of the guest’s tables, and nothing is touched by looking', () => {
    const session = new Session();
    // In the handler of the first page that isn't there: tables for small and large pages are in use.
    session.send(`Z1,${hex(PAGE_FAULT)},1`);
    session.send('c');
    const { pc } = session;
    const before = hash(pc.ram);
    const stats = JSON.stringify([pc.unit.vcpu.stats, pc.vm.stats]);
    // 4 KiB pages in reverse order; a large page 2 MiB above DATA; the pages of the handler, of which none is there.
    expect(session.send('m40000ff0,20')).toBe(session.send('m9ffff0,10') + session.send('m9fe000,10'));
    expect(session.send('m40200000,8')).toBe(session.send('ma00000,8'));
    expect(session.send('m40400000,8')).toBe('E0e');
    // As far as it goes; devices are not asked.
    expect(session.send('m1fffffc,8')).toBe('00000000');
    expect(session.send('mfee00000,4')).toBe('E0e');
    expect(session.send('m8000000000000000,4')).toBe('E0e');
    expect(hash(pc.ram)).toBe(before);
    expect(JSON.stringify([pc.unit.vcpu.stats, pc.vm.stats])).toBe(stats);
  });

  it('is written where the tables forbid it too, and code with it', () => {
    const session = new Session();
    session.send(`Z1,${hex(PUT)},1`);
    session.send('c');
    // A breakpoint of the old kind would be one byte; here the function returns at once, and nothing is printed any more.
    expect(session.send(`X${hex(PUT)},1:\xc3`)).toBe('OK');
    expect(session.send(`M${hex(PUT)},1:c3`)).toBe('OK');
    session.send(`z1,${hex(PUT)},1`);
    expect(session.send('X80000000,1:x')).toBe('E0e');
    expect(session.send('c')).toBe('W00');
    expect(session.console.text).toBe('');
  });

  it('that is written is in the dirty log', () => {
    const session = new Session();
    session.pc.setLogging(true);
    session.send(`M9ffffe,4:01020304`);
    const log = session.pc.vm.getDirtyLog(0);
    expect([0x9ff, 0xa00].map((gfn) => (log[gfn >> 5] >>> (gfn & 31)) & 1)).toEqual([1, 1]);
  });
});

describe('CPUs are threads', () => {
  const smp = () => new Session(SMP, { cpus: 2, quantum: 300 });

  it('that are listed, described and chosen', () => {
    const session = smp();
    expect([session.send('qfThreadInfo'), session.send('qsThreadInfo'), session.send('qC')]).toEqual([
      'm1,2',
      'l',
      'QC1',
    ]);
    expect(Buffer.from(session.send('qThreadExtraInfo,2'), 'hex').toString()).toBe('CPU 1 [not started]');
    expect([session.send('T2'), session.send('T3'), session.send('Hg2'), session.send('Hg3')]).toEqual([
      'OK',
      'E16',
      'OK',
      'E16',
    ]);
    expect(session.register(RIP)).toBe(0xfffffff0n);
  });

  it('of which one steps while the others stand still or go on', () => {
    const session = smp();
    session.interruptAfter = 60_000;
    expect(session.send('c')).toMatch(/^T02thread:[12];$/);
    const retired = () => session.pc.cpus.map(({ cpu }) => cpu.retired);
    const first = retired();
    expect(session.send('vCont;s:1')).toBe('T05thread:1;');
    expect(session.send('vCont;s:2')).toBe('T05thread:2;');
    expect(retired()).toEqual([first[0] + 1, first[1] + 1]);
    expect(session.send('vCont;s:2;c')).toBe('T05thread:2;');
    expect(retired()[1]).toBe(first[1] + 2);
    session.interruptAfter = Infinity;
    expect(session.send('c')).toBe('W00');
  });

  it('that all stop at a breakpoint', () => {
    const session = smp();
    session.interruptAfter = 60_000;
    session.send('c');
    session.interruptAfter = Infinity;
    const both = new Set<string>();
    // Where each of them is now, they come by again.
    for (const thread of [1, 2]) {
      session.send(`Hg${thread}`);
      session.send(`Z0,${session.register(RIP).toString(16)},1`);
    }
    for (let n = 0; n < 60; n++) both.add(session.send('c'));
    expect([...both].every((reply) => /^T05thread:[12];$/.test(reply))).toBe(true);
    expect(session.send('D')).toBe('OK');
    session.stub.release();
    expect(session.done).toEqual(['detach']);
  });
});

describe('the end', () => {
  it('of a guest is its exit status', () => {
    // mov al, 2; out 0xf4, al
    expect(new Session(codeImage([0xb0, 2, 0xe6, 0xf4])).send('c')).toBe('W05');
  });

  it('by a crash can be looked at', () => {
    // ud2 without a table of handlers: a triple fault.
    const session = new Session(codeImage([0x0f, 0x0b]));
    expect(session.send('c')).toBe('T06thread:1;');
    expect(session.register(RIP)).toBe(0x100010n);
    expect(session.send('c')).toBe('X06');
  });

  it('comes when it is killed', () => {
    const session = new Session();
    expect([session.send('vKill;1'), session.send('k')]).toEqual(['OK', '']);
    expect(session.done).toEqual(['kill', 'kill']);
  });
});

describe('malformed packets', () => {
  const session = new Session();

  // biome-ignore format: a table
  it.each([
    'm', 'mxyz', 'm0', 'm0,', 'm12345678901234567,1', 'M0,2:00', 'M0,1:0g', 'X0,5:a', 'Z0', 'Z2,0,0', 'Z2,0,fffffff', 'z2,zz,1',
    'Hg99', 'Hx1', 'T0', 'p', 'pfff', 'P0', 'P0=0', 'P0=00', 'Pfff=00', 'G00', 'vCont;', 'vCont;x', 'vCont;c:9', 'czz', 'C', 's-1',
    'qThreadExtraInfo,9', 'qXfer:features:read:other.xml:0,10', 'qXfer:features:read:target.xml:zz',
  ])('are refused: %s', (text) => {
    expect(session.send(text)).toMatch(/^E\d/);
  });

  it('and those that are not built are answered by nothing', () => {
    for (const text of ['', 'Z5,0,1', 'vMustReplyEmpty', 'vFile:open', 'qTStatus', 'qXfer:auxv:read::0,10', '_', 'R00'])
      expect(session.send(text)).toBe('');
  });

  it('of any kind leave a stub that works', () => {
    const letters = 'gGmMXpPzZHTqQvsScC?kD!'.split('');
    fc.assert(
      fc.property(fc.constantFrom(...letters), fc.string({ maxLength: 12 }), (letter, rest) => {
        session.interruptAfter = 10;
        session.send(`${letter}${rest.replaceAll(/[$#}]/g, '')}`);
        expect(session.send('qC')).toBe('QC1');
      }),
      { numRuns: 300 },
    );
  });
});
