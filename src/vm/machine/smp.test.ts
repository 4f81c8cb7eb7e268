/** Several CPUs: `guests/smp`, which checks itself, and what it can't see. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { DELIVER_INIT, DELIVER_NMI, DELIVER_SIPI } from '../../dev/apic-bus.ts';
import { CR0, CS, LINEAR_RIP, RAX, RDX, SEGMENTS, XMM } from '../../cpu/state.ts';
import { DirtyLogCheck } from './dirty-log-check.ts';
import type { PagingName, Pc } from './pc.ts';
import { MP_HALTED, MP_INIT_RECEIVED, MP_RUNNABLE, MP_UNINITIALIZED } from './pc-cpu.ts';
import { codeImage, le32, makePc, runToEnd } from './testing/guests.ts';

const SMP = readFileSync(fileURLToPath(new URL('../../../guests/smp/smp.elf', import.meta.url)));
const PAGINGS: readonly PagingName[] = ['tdp', 'tdp-mmu', 'shadow'];
/** Short turns make many encounters. */
const QUANTUM = 300;

function smp(options: Parameters<typeof makePc>[1] = {}, kernel: Uint8Array = SMP) {
  return makePc(kernel, { cpus: 2, megabytes: 32, quantum: QUANTUM, ...options });
}

function hashOf(pc: Pc): string {
  return createHash('sha256').update(pc.ram).digest('hex');
}

const retiredOf = (pc: Pc): number[] => pc.cpus.map(({ cpu }) => cpu.retired);

describe('the guest with several CPUs', () => {
  it.each(PAGINGS)('finds its locks, its shootdowns and its rewritten code right under %s', (paging) => {
    for (const [cpus, seed] of [
      [1, 1],
      [2, 2],
      [3, 3],
    ]) {
      const { pc, console } = smp({ paging, cpus, seed });
      runToEnd(pc);
      const locked = (cpus * 0x800).toString(16).padStart(8, '0');
      expect(console.text).toBe(`cpus ${cpus} locked ${locked} rounds 0100 nmis ${cpus - 1} ok\n`);
      expect(pc.end?.reason).toBe('power-off');
      expect(pc.vm.verify()).toEqual([]);
    }
  });

  it.each(PAGINGS)('notices if a CPU keeps its old translation (%s)', (paging) => {
    const { pc, console } = smp({ paging }, withoutFlush());
    runToEnd(pc);
    expect(console.text).toMatch(/^wrong: /);
    expect(pc.end).toMatchObject({ reason: 'debug-exit', status: 19 });
  });

  it.each(PAGINGS)('does the same with the same seed, however the run is cut, and not with another (%s)', (paging) => {
    const first = smp({ paging }).pc;
    runToEnd(first);
    const cut = smp({ paging }).pc;
    while (cut.end === null) cut.run(777);
    expect(retiredOf(cut)).toEqual(retiredOf(first));
    expect(cut.nowNs).toBe(first.nowNs);
    expect(hashOf(cut)).toBe(hashOf(first));
    expect(cut.cpus.map(({ unit }) => unit.vcpu.stats)).toEqual(first.cpus.map(({ unit }) => unit.vcpu.stats));
    for (const other of [{ seed: 7 }, { quantum: 1000 }]) {
      const { pc } = smp({ paging, ...other });
      runToEnd(pc);
      expect(pc.end?.reason).toBe('power-off');
      expect(retiredOf(pc)).not.toEqual(retiredOf(first));
    }
  });

  it.each(PAGINGS)('writes no page that the dirty log or the rings of its CPUs miss (%s)', (paging) => {
    for (const ringBytes of [undefined, 4096]) {
      const { pc } = smp({ paging, ringBytes });
      pc.run(1000);
      const check = new DirtyLogCheck(pc);
      while (pc.end === null) {
        pc.run(20_000);
        check.round();
      }
      expect(pc.end.reason).toBe('power-off');
      expect(check.rounds).toBeGreaterThan(10);
      expect(check.logged).toBeGreaterThan(check.rounds);
      expect(check.lost).toEqual([]);
      // Each CPU that has a ring has used it.
      expect(pc.cpus.filter(({ unit }) => unit.dirtyRing !== null && unit.dirtyRing.dirtyIndex <= 10)).toEqual([]);
    }
  });
});

/** The guest, its handler of the shootdown without INVLPG. */
function withoutFlush(): Uint8Array {
  const bytes = Uint8Array.from(SMP);
  // mov rdi, 40000000; invlpg [rdi]; lock inc: only the handler goes on so.
  const at = Buffer.from(bytes).indexOf(Buffer.from('bf000000400f013ff0ff', 'hex'));
  if (at < 0) throw new Error('the handler looks different');
  bytes.fill(0x90, at + 5, at + 8);
  return bytes;
}

/** A boot processor that does nothing, and code at 0x8000 for the other. */
function withCode(...code: number[]): Pc {
  const { pc } = makePc(codeImage(0xeb, 0xfe), { cpus: 2, quantum: QUANTUM });
  pc.ram.set(code, 0x8000);
  pc.run(1000);
  return pc;
}

/** The other CPU begins at 0x8000. */
function start(pc: Pc): void {
  for (const [mode, vector] of [
    [DELIVER_INIT, 0],
    [DELIVER_SIPI, 8],
  ]) {
    pc.board.apicBus.send(1, false, mode, vector, false, null);
    pc.run(1000);
  }
}

const INC_AX_AND_HALT = [0x40, 0xf4]; // inc ax; hlt

describe('a CPU that is not the first', () => {
  it('waits for INIT, then for the start-up message, and begins in real mode at its page', () => {
    const pc = withCode(...INC_AX_AND_HALT);
    const other = pc.cpus[1];
    const send = (mode: number, vector: number): void => {
      pc.board.apicBus.send(1, false, mode, vector, false, null);
      pc.run(2000);
    };
    send(DELIVER_SIPI, 8);
    expect([other.mpState, other.cpu.retired]).toEqual([MP_UNINITIALIZED, 0]);
    send(DELIVER_INIT, 0);
    expect([other.mpState, other.cpu.retired]).toEqual([MP_INIT_RECEIVED, 0]);
    send(DELIVER_SIPI, 8);
    expect([other.mpState, other.cpu.retired, other.cpu.state.get(RAX)]).toEqual([MP_HALTED, 2, 1]);
    expect(other.cpu.state.get(SEGMENTS + CS * 16)).toBe(0x800);
    expect(other.cpu.state.get(LINEAR_RIP)).toBe(0x8002);
    // Running or halted, a start-up message without INIT says nothing to it.
    send(DELIVER_SIPI, 8);
    expect(other.cpu.retired).toBe(2);
  });

  it('is stopped by INIT, which leaves SSE registers and its count alone', () => {
    const pc = withCode(0xeb, 0xfe);
    const other = pc.cpus[1];
    start(pc);
    expect(other.mpState).toBe(MP_RUNNABLE);
    const retired = other.cpu.retired;
    expect(retired).toBeGreaterThan(100);
    other.cpu.state.set(XMM, 0x1234);
    other.cpu.state.set(RAX, 5);
    pc.board.apicBus.send(1, false, DELIVER_INIT, 0, false, null);
    pc.run(2000);
    expect(other.mpState).toBe(MP_INIT_RECEIVED);
    expect(other.cpu.state.get(XMM)).toBe(0x1234);
    expect(other.cpu.state.get(RAX)).toBe(0);
    expect(other.cpu.state.get(RDX)).toBe(other.cpuidTable.signature);
    expect(other.cpu.state.get(CR0)).toBe(0x60000010);
    expect(other.cpu.state.get(LINEAR_RIP)).toBe(0xfffffff0 | 0);
    expect(other.cpu.retired).toBeLessThan(retired + 2 * QUANTUM);
  });

  it('is woken from its halt by an NMI, with interrupts off', () => {
    const pc = withCode(0xfa, 0xf4, 0x40, 0xf4); // cli; hlt; inc ax; hlt
    pc.ram.set([0xcf], 0x9000); // iret
    pc.ram.set([0x00, 0x90, 0, 0], 2 * 4);
    const other = pc.cpus[1];
    start(pc);
    pc.board.apicBus.send(1, false, DELIVER_NMI, 0, false, null);
    pc.run(2000);
    expect([other.mpState, other.cpu.state.get(RAX)]).toEqual([MP_HALTED, 1]);
  });
});

describe('a hypercall for interrupts', () => {
  // mov eax, 10; mov ebx, set; xor ecx, ecx; mov edx, first; mov esi, icr; vmmcall; l: jmp l
  const ask = (set: number, first: number, icr: number) =>
    codeImage(
      [0xb8, ...le32(10), 0xbb, ...le32(set), 0x31, 0xc9, 0xba, ...le32(first), 0xbe, ...le32(icr)],
      [0x0f, 0x01, 0xd9, 0xeb, 0xfe],
    );

  // biome-ignore format: a table
  it.each([
    [0b110, 0, 0xc1,          2, [false, true, true]],
    [0b1,   2, 0xc1,          1, [false, false, true]],
    [0b1,   3, 0xc1,          0, [false, false, false]],
    [-1,    1, 0xc1,          2, [false, true, true]],
    [0b110, 0, 0x800 | 0xc1,  -22, [false, false, false]], // logical destinations are refused
  ])('for the set %i from %i on, ICR %i, answers %i', (set, first, icr, answer, taken) => {
    const { pc } = makePc(ask(set, first, icr), { cpus: 3 });
    for (const { apic } of pc.board.cpus) apic.mmioWrite(0xf0, 4, 0x1ff);
    pc.run(100);
    expect(pc.cpu.state.get(RAX)).toBe(answer);
    expect(pc.board.cpus.map(({ apic }) => apic.interruptPending())).toEqual(taken);
  });
});

describe('time', () => {
  it('is shared: two CPUs get as far in a nanosecond as one', () => {
    const pc = withCode(0xeb, 0xfe);
    const started = pc.instructions;
    expect(pc.nowNs).toBe(started);
    start(pc);
    const [ns, [first, second]] = [pc.nowNs, retiredOf(pc)];
    pc.run(1_000_000);
    const [firstLater, secondLater] = retiredOf(pc);
    const passed = pc.nowNs - ns;
    expect(passed / (firstLater - first)).toBeCloseTo(1, 1);
    expect(passed / (secondLater - second)).toBeCloseTo(1, 1);
  });

  it('ends the machine when all CPUs are halted with interrupts off, not before', () => {
    // l: cmp byte [0x7000], 0; jz l; cli; hlt
    const { pc } = makePc(codeImage(0x80, 0x3d, le32(0x7000), 0, 0x74, 0xf7, 0xfa, 0xf4), { cpus: 2 });
    pc.ram.set([0xeb, 0xfe], 0x8000);
    pc.run(1000);
    start(pc);
    pc.ram[0x7000] = 1;
    pc.run(100_000);
    expect(pc.cpus.map(({ mpState }) => mpState)).toEqual([MP_HALTED, MP_RUNNABLE]);
    expect(pc.end).toBeNull();
    pc.board.apicBus.send(1, false, DELIVER_INIT, 0, false, null);
    pc.run(100_000);
    expect(pc.end?.message).toMatch(/^CPU \d: halted with interrupts off\n/);
  });
});
