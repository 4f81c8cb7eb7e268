import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { E2BIG, EINTR, EINVAL, ENXIO } from '../base/errno.ts';
import { Prng } from '../base/prng.ts';
import { DIRTY_GFN_F_DIRTY, DIRTY_GFN_F_RESET, type DirtyRing } from '../mem/dirty-ring.ts';
import { MEM_LOG_DIRTY_PAGES as LOG } from '../mem/memslots.ts';
import { TP_DIRTY_RING_PUSH, TP_DIRTY_RING_RESET } from '../trace/tracepoints.ts';
import { type BuiltVm, buildVm, errnoOf, expectSound, flushesDuring, READ, WRITE } from './testing/build-vm.ts';
import { CAP_DIRTY_LOG_RING } from './vm.ts';

/** 256 entries, of which 192 may be used. */
const RING = 4096;
const SOFT_LIMIT = 192;

function ringVm(pages = 1024, vcpus = 1): BuiltVm & { ring: DirtyRing } {
  const built = buildVm({ pages, flags: LOG, level: 1, ring: RING, vcpus });
  return { ...built, ring: built.vcpu.dirtyRing! };
}

function harvest(ring: DirtyRing): number[] {
  const pages: number[] = [];
  ring.harvest((slot, offset) => pages.push(slot * 1e6 + offset));
  return pages;
}

describe('dirty rings', () => {
  // biome-ignore format: a table
  it.each([
    ['4 KiB',                    4096,        0],
    ['the largest',              65536 * 16,  0],
    ['nothing',                  0,           EINVAL],
    ['no power of two',          5000,        EINVAL],
    ['less than a page',         2048,        EINVAL],
    ['less than the reserve',    512,         EINVAL],
    ['too large',                65536 * 32,  E2BIG],
  ])('of %s are made or refused', (_name, bytes, errno) => {
    const { vm } = buildVm({ pages: 0, vcpus: 0 });
    expect(errnoOf(() => vm.enableCap(CAP_DIRTY_LOG_RING, bytes))).toBe(errno);
  });

  it('are made once, and before the vCPUs', () => {
    const { vm } = buildVm({ pages: 0, vcpus: 0, ring: RING });
    expect(errnoOf(() => vm.enableCap(CAP_DIRTY_LOG_RING, RING))).toBe(EINVAL);
    expect(errnoOf(() => buildVm({ pages: 0 }).vm.enableCap(CAP_DIRTY_LOG_RING, RING))).toBe(EINVAL);
  });

  it('take the place of the bitmaps', () => {
    const { vm } = ringVm();
    expect(errnoOf(() => vm.getDirtyLog(0))).toBe(ENXIO);
    expect(errnoOf(() => vm.clearDirtyLog(0, 0, 64, new Int32Array(2)))).toBe(ENXIO);
    // Before the slot is even looked at.
    expect(errnoOf(() => vm.getDirtyLog(9))).toBe(ENXIO);
    expect(errnoOf(() => buildVm().vm.resetDirtyRings())).toBe(EINVAL);
  });

  it('get each page once until it is reset, in the order of the writes', () => {
    const { vm, vcpu, ring } = ringVm();
    for (const page of [7, 3, 7, 900]) vcpu.touchPage(page, WRITE);
    vcpu.touchPage(3, READ);
    expect(harvest(ring)).toEqual([7, 3, 900]);
    vcpu.touchPage(7, WRITE);
    expect(harvest(ring)).toEqual([]);
    expect(vm.resetDirtyRings()).toBe(3);
    vcpu.touchPage(7, WRITE);
    expect(harvest(ring)).toEqual([7]);
    expectSound(vm);
  });

  it('are per vCPU', () => {
    const { vm } = ringVm(1024, 2);
    vm.vcpus[0].touchPage(1, WRITE);
    vm.vcpus[1].touchPage(2, WRITE);
    expect(vm.vcpus.map((vcpu) => harvest(vcpu.dirtyRing!))).toEqual([[1], [2]]);
  });

  it('flush at a reset if anything was reset, and only then', () => {
    const { vm, vcpu, ring } = ringVm();
    vcpu.touchPage(5, WRITE);
    expect(flushesDuring(vm, () => vm.resetDirtyRings())).toBe(0);
    harvest(ring);
    expect(flushesDuring(vm, () => vm.resetDirtyRings())).toBe(1);
    expect(flushesDuring(vm, () => vm.resetDirtyRings())).toBe(0);
  });

  it('reset what user space has marked, up to the first entry that it has not', () => {
    const { vm, vcpu, ring } = ringVm();
    for (const page of [1, 2, 3]) vcpu.touchPage(page, WRITE);
    for (const entry of [0, 2]) ring.words[ring.at(entry)] |= DIRTY_GFN_F_RESET;
    expect(vm.resetDirtyRings()).toBe(1);
    expect([ring.resetIndex, ring.dirtyIndex]).toEqual([1, 3]);
    expect(ring.words[ring.at(0)]).toBe(0);
    expect(ring.words[ring.at(1)]).toBe(DIRTY_GFN_F_DIRTY);
  });

  it('make the vCPU leave when they are full but for the reserve', () => {
    const { vm, vcpu, ring } = ringVm();
    for (let page = 0; page < SOFT_LIMIT - 1; page++) vcpu.touchPage(page, WRITE);
    // The page is logged and mapped, but the guest doesn't get to write it.
    expect(errnoOf(() => vcpu.touchPage(500, WRITE))).toBe(EINTR);
    expect(ring.used).toBe(SOFT_LIMIT);
    expect(vcpu.run()).toBe(0);
    expect(vcpu.exit).toEqual({ reason: 'dirty ring full' });
    harvest(ring);
    vm.resetDirtyRings();
    vcpu.touchPage(1000, WRITE);
    expect(harvest(ring)).toEqual([1000]);
  });

  it.each([
    // What user space wrote            slot          low      high
    ['a slot that is not there', 5, 0, 0],
    ['an address space that is not there', 2 << 16, 0, 0],
    ['a page behind the slot', 0, 5000, 0],
    ['a page just below 2^64', 0, -1, -1],
  ])('believe nothing that user space writes: %s', (_name, slot, lo, hi) => {
    const { vm, vcpu, ring } = ringVm();
    vcpu.touchPage(1, WRITE);
    ring.words.set([DIRTY_GFN_F_RESET, slot, lo, hi]);
    expect(vm.resetDirtyRings()).toBe(1);
    // It is not re-armed, and nothing else happens.
    vcpu.touchPage(1, WRITE);
    expect(ring.used).toBe(0);
    expectSound(vm);
  });

  it('tell the tracer', () => {
    const { vm, vcpu, ring } = ringVm();
    vm.trace.on = true;
    vcpu.touchPage(9, WRITE);
    harvest(ring);
    vm.resetDirtyRings();
    const ids = Array.from({ length: vm.trace.count }, (_, n) => vm.trace.words[vm.trace.offsetOf(n)]);
    expect(ids.filter((id) => id === TP_DIRTY_RING_PUSH || id === TP_DIRTY_RING_RESET)).toEqual([
      TP_DIRTY_RING_PUSH,
      TP_DIRTY_RING_RESET,
    ]);
  });

  it('lose no page, whatever is written, harvested and reset in whatever order', () => {
    fc.assert(
      fc.property(fc.nat(), fc.constantFrom(1 as const, 2 as const), (seed, level) => {
        const random = new Prng(seed);
        const { vm, vcpu } = buildVm({ pages: 2048, flags: LOG, level, ring: RING });
        const ring = vcpu.dirtyRing!;
        const written = new Set<number>();
        const told = new Set<number>();
        const missing: number[] = [];
        const collect = (): void => void ring.harvest((_slot, page) => told.add(page));
        for (let i = 0; i < 600; i++) {
          if (random.chance(0.05)) collect();
          if (random.chance(0.03) || ring.used >= SOFT_LIMIT - 1) {
            collect();
            missing.push(...[...written].filter((page) => !told.has(page)));
            // From here on a page that is written again must be told again.
            vm.resetDirtyRings();
            written.clear();
            told.clear();
          }
          const page = random.chance(0.7) ? random.int(100) : random.int(2048);
          const kind = random.chance(0.8) ? WRITE : READ;
          vcpu.touchPage(page, kind);
          if (kind === WRITE) written.add(page);
        }
        expect(missing).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });
});
