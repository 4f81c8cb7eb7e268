/**
 * CVE-2018-12207: a CPU that finds one instruction address in its TLB twice, in pages of different size, stops with a machine
 * check, and the host with it. The bug is the CPU's; what KVM had to mend is that a guest could bring it about. So this
 * exhibit has no switch of ours: on is KVM without its `nx_huge_pages`.
 */
import { describe, expect, it, vi } from 'vitest';
import { ATTR_HOST_NX, ATTR_NX } from '../../hw/rights.ts';
import type { Tlb } from '../../hw/tlb.ts';
import { A, buildGuest, D, P, PS, U, W, WUAD } from '../../vm/testing/build-guest.ts';

const MIB = 2 ** 20;
const DATA = 16 * MIB;
const VA = 0x40000000;
/** `out 0x10`: the op ends. */
const CODE = 0x10e6n;

/** Counts how often the TLB gets a translation for fetches where it has one of another size already. */
function watchFetches(tlb: Tlb): () => number {
  const levels = new Map<string, Set<number>>();
  let machineChecks = 0;
  for (const flush of ['flushAll', 'flushAsid', 'flushNonGlobal', 'flushGva'] as const) {
    const real: (...args: number[]) => void = tlb[flush].bind(tlb);
    vi.spyOn(tlb, flush).mockImplementation((...args: number[]) => {
      levels.clear();
      real(...args);
    });
  }
  const insert = tlb.insert.bind(tlb);
  vi.spyOn(tlb, 'insert').mockImplementation((space, lo, hi, pfn, level, attr) => {
    insert(space, lo, hi, pfn, level, attr);
    if (attr & (ATTR_NX | ATTR_HOST_NX)) return;
    const region = `${hi}:${lo >>> 21}`;
    const seen = levels.get(region) ?? new Set();
    levels.set(region, seen.add(level));
    if (seen.has(1) && seen.has(2)) machineChecks++;
  });
  return () => machineChecks;
}

/** A guest that runs code in a large page, and makes small ones of it without INVLPG. */
function machineChecks(nxHugePages: 'on' | 'off'): number {
  const guest = buildGuest({
    npt: true,
    slots: [{ id: 1, gpa: DATA, bytes: 4 * MIB, backing: '2m' }],
    maps: [
      { va: VA, gpa: DATA, level: 2, bits: P | W | A | D },
      // Makes a table of small pages.
      { va: VA + 4 * MIB, gpa: DATA, count: 4, bits: WUAD },
    ],
    data: [
      [DATA, CODE],
      [DATA + 4096, CODE],
    ],
  });
  guest.expectDone(`param nx_huge_pages ${nxHugePages}`, 'nop');
  guest.vcpu.cpu.flushAtEntry = false;
  const count = watchFetches(guest.vcpu.cpu.tlb);
  guest.expectDone(`x ${VA}`);
  const table = Math.floor(guest.entry(VA + 4 * MIB, 1) / 4096) * 4096;
  guest.expectDone(`hw ${guest.entry(VA, 2)} ${table | P | W | U | A}`);
  expect(guest.peek(guest.entry(VA, 2)) & BigInt(PS)).toBe(0n);
  // The user may not fetch through what the TLB has, so the CPU walks the new tables.
  guest.expectDone(`x ${VA + 4096} user`);
  return count();
}

describe('nx_huge_pages', () => {
  it('off: the guest stops the host', () => expect(machineChecks('off')).toBeGreaterThan(0));
  it('on: nothing of the kind', () => expect(machineChecks('on')).toBe(0));
});
