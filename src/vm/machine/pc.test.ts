import { describe, expect, it } from 'vitest';
import { POLICIES, type PolicyName } from '../../mmu/policy.ts';
import { DirtyLogCheck } from './dirty-log-check.ts';
import { PAGINGS, type PagingName } from './pc.ts';
import { codeImage, le32, makePc, runToEnd, TINY, TINY_OUTPUT } from './testing/guests.ts';

const POLICY_NAMES = Object.keys(POLICIES) as PolicyName[];
const ALL_PAGINGS = Object.keys(PAGINGS) as PagingName[];
/** Each engine once. */
const ENGINES: readonly PagingName[] = ['tdp', 'tdp-mmu', 'shadow'];
const COMBINATIONS = ALL_PAGINGS.flatMap((paging) =>
  POLICY_NAMES.filter((policy) => policy === 'lazy' || ENGINES.includes(paging)).map(
    (policy) => [paging, policy] as const,
  ),
);

describe('the tiny guest', () => {
  it.each(COMBINATIONS)('says its lines and powers off under %s paging, policy %s', (paging, policy) => {
    const { pc, console } = makePc(TINY, { paging, policy });
    runToEnd(pc);
    expect(pc.end).toMatchObject({ reason: 'power-off', status: 0 });
    expect(console.text).toBe(TINY_OUTPUT);
    expect(pc.vm.verify()).toEqual([]);
  });

  it.each(ENGINES)('does the same twice, instruction for instruction, however the run is cut (%s)', (paging) => {
    const whole = makePc(TINY, { paging });
    runToEnd(whole.pc);
    const cut = makePc(TINY, { paging });
    while (cut.pc.end === null) cut.pc.run(777);
    // A run ends at a jump, so a cut one may look for events at other places; the guest takes no interrupts.
    expect(cut.pc.instructions).toBe(whole.pc.instructions);
    expect(cut.pc.unit.vcpu.stats).toEqual(whole.pc.unit.vcpu.stats);
    expect(Buffer.compare(cut.pc.ram, whole.pc.ram)).toBe(0);
  });

  it.each(COMBINATIONS)('writes no page that the dirty log misses, but for the bug (%s, %s)', (paging, policy) => {
    const { pc } = makePc(TINY, { paging, policy });
    pc.run(1000);
    const check = new DirtyLogCheck(pc);
    while (pc.end === null) {
      pc.run(400_000);
      check.round();
    }
    expect(check.logged).toBeGreaterThan(100);
    // Under shadow paging too: as long as the guest has no paging of its own, a fault can be fixed fast.
    expect(check.lostCount > 0).toBe(policy === 'lazy+bug');
  });

  it.each(ENGINES)('writes no page that the dirty ring misses, however small it is (%s)', (paging) => {
    const { pc } = makePc(TINY, { paging, ringBytes: 4096 });
    pc.run(1000);
    const check = new DirtyLogCheck(pc);
    while (pc.end === null) {
      pc.run(400_000);
      check.round();
    }
    expect(check.logged).toBeGreaterThan(100);
    expect(check.lostCount).toBe(0);
    expect(pc.unit.dirtyRing?.dirtyIndex).toBeGreaterThan(1000);
  });
});

describe('page-modification logging', () => {
  it.each(['ept', 'ept-tdp-mmu'] as const)('misses no page, without a fault for each (%s)', (paging) => {
    for (const ringBytes of [undefined, 16384])
      for (const policy of ['lazy', 'eager'] as const) {
        const { pc } = makePc(TINY, { paging, policy, pml: true, ringBytes });
        pc.run(1000);
        const check = new DirtyLogCheck(pc);
        while (pc.end === null) {
          pc.run(400_000);
          check.round();
        }
        expect(check.logged).toBeGreaterThan(100);
        expect(check.lostCount).toBe(0);
        expect(pc.vm.verify()).toEqual([]);
        expect(pc.unit.vcpu.stats.pf_fast).toBe(0);
      }
  });

  it('is refused where the CPU has none', () => {
    for (const paging of ['tdp', 'shadow', 'ept-no-ad'] as const)
      expect(() => makePc(TINY, { paging, pml: true })).toThrow(`${paging} has no page-modification logging`);
  });
});

const EXIT = [0xb8, 0x15, 0, 0, 0, 0xe7, 0xf4]; // mov eax, 21; out 0xf4, eax

describe('a machine', () => {
  it('ends with the status that the guest gives the debug-exit device', () => {
    const { pc } = makePc(codeImage(...EXIT));
    runToEnd(pc);
    expect(pc.end).toMatchObject({ reason: 'debug-exit', status: 43 });
  });

  it.each(ALL_PAGINGS)('reads and writes devices by MMIO (%s)', (paging) => {
    // mov dword [0xfee00080], 0x50; mov eax, [0xfee00080]; out 0xf4, eax
    const { pc } = makePc(
      codeImage(0xc7, 0x05, ...le32(0xfee00080), ...le32(0x50), 0xa1, ...le32(0xfee00080), 0xe7, 0xf4),
      { paging },
    );
    runToEnd(pc);
    expect(pc.end?.status).toBe(0xa1);
    expect(pc.unit.vcpu.stats.mmio_exits).toBe(2);
    expect(pc.unit.vcpu.stats.pf_mmio_spte_created).toBe(1);
  });

  it('runs code that it has just written', () => {
    // Twice: write `mov al, N; ret` over the routine, call it, add up. N = 3, then 4.
    const routine = 0x108000;
    const round = (n: number): number[] => [
      199,
      5,
      ...le32(routine),
      ...le32(12779696 | (n << 8)),
      184,
      ...le32(routine),
      255,
      208,
      0,
      195,
    ];
    const { pc } = makePc(
      codeImage(0xbc, ...le32(0x10f000), 0x31, 0xdb, round(3), round(4), 0x0f, 0xb6, 0xc3, 0xe7, 0xf4),
    );
    runToEnd(pc);
    expect(pc.end).toMatchObject({ reason: 'debug-exit', status: 15 });
  });

  it('says with all registers that the guest gave a triple fault', () => {
    const { pc } = makePc(codeImage(0xb8, ...le32(0x1234abcd), 0x0f, 0x0b));
    runToEnd(pc);
    expect(pc.end?.reason).toBe('shutdown');
    expect(pc.end?.message).toMatch(/^triple fault\nRAX 000000001234abcd/);
    expect(pc.end?.message).toContain('RIP 0000000000100015');
  });

  it.each(ENGINES)('says so when the guest jumps to where nothing is (%s)', (paging) => {
    const { pc } = makePc(codeImage(0xb8, ...le32(0xd0000000), 0xff, 0xe0), { paging });
    runToEnd(pc);
    expect(pc.end?.reason).toBe('failed');
    expect(pc.end?.message).toMatch(/fetch from a device[^]*RIP 00000000d0000000/);
  });

  it('says so when the CPU halts for ever', () => {
    const { pc } = makePc(codeImage(0xfa, 0xf4));
    runToEnd(pc);
    expect(pc.end?.reason).toBe('halted');
    expect(pc.end?.message).toMatch(/^halted with interrupts off\n/);
  });

  it('outlives a guest that does nothing but MMIO', () => {
    // l: mov eax, [0xfec00000]; mov [0xd0000000], eax; jmp l
    const { pc } = makePc(codeImage(0xa1, ...le32(0xfec00000), 0xa3, ...le32(0xd0000000), 0xeb, 0xf4));
    runToEnd(pc, 100_000);
    expect(pc.end).toBeNull();
    expect(pc.unit.vcpu.stats.mmio_exits).toBeGreaterThan(60_000);
  });

  it.each(ENGINES)('outlives a guest that floods its page tables (%s)', (paging) => {
    // 4 MiB pages, identity; then for ever: rewrite each entry of the directory, and touch what it maps.
    const { pc } = makePc(
      codeImage(
        [0xbf, ...le32(0x200000), 0xb8, ...le32(0x83), 0xb9, ...le32(1024)], // edi, eax, ecx
        [0x89, 0x07, 0x83, 0xc7, 0x04, 0x05, ...le32(0x400000), 0xe2, 0xf4], // fill
        [0xb8, ...le32(0x200000), 0x0f, 0x22, 0xd8], // cr3
        [0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x10, 0x0f, 0x22, 0xe0], // cr4.pse
        [0x0f, 0x20, 0xc0, 0x0d, ...le32(0x80000000), 0x0f, 0x22, 0xc0], // cr0.pg
        [0xbf, ...le32(0x200004), 0xb8, ...le32(0x400083), 0xb9, ...le32(1023)], // again:
        [0x89, 0x07, 0x89, 0xc3, 0x83, 0xe3, 0x80], // mov [edi], eax; mov ebx, eax; and ebx, ~0x7f
        [0x81, 0xe3, ...le32(0x00c00000), 0x89, 0x03], // and ebx, 0xc00000; mov [ebx], eax
        [0x83, 0xc7, 0x04, 0x05, ...le32(0x400000), 0xe2, 0xe7, 0xeb, 0xd6],
      ),
      { paging },
    );
    runToEnd(pc, 300_000);
    expect(pc.end).toBeNull();
    expect(pc.vm.verify()).toEqual([]);
    // Under nested paging KVM takes no part in it.
    expect(pc.vm.stats.mmu_pte_write > 1000).toBe(paging === 'shadow');
  });

  it('refuses memory that it can not have', () => {
    expect(() => makePc(TINY, { megabytes: 0 })).toThrow('0 bytes of memory: it must be whole MiB, from 2 to 3072');
    expect(() => makePc(TINY, { megabytes: 4096 })).toThrow(/whole MiB/);
  });
});

describe('time', () => {
  // sti is not needed: the PIT's output is polled at port 0x61.
  it('is one nanosecond an instruction', () => {
    const { pc } = makePc(codeImage(0xeb, 0xfe));
    pc.run(1_000_000);
    expect(pc.board.clock.now).toBe(pc.instructions);
  });

  it('goes on while the CPU is halted until a timer wakes it', () => {
    const { pc } = makePc(TINY);
    pc.catchUp(5e6);
    expect(pc.board.clock.now).toBe(5e6);
    pc.run(1000);
    expect(pc.board.clock.now).toBe(5e6 + pc.instructions);
  });
});
