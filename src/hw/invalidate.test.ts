import { beforeEach, describe, expect, it } from 'vitest';
import {
  FLUSH_ALL,
  FLUSH_ASID,
  FLUSH_GVA,
  FLUSH_NAMES,
  FLUSH_KINDS,
  FLUSH_NON_GLOBAL,
  FLUSH_PCID,
  FLUSH_SINGLE,
  flush,
  FlushQueue,
} from './invalidate.ts';
import { ATTR_D, ATTR_G, ATTR_HOST_ALL, ATTR_PAGE_SHIFT_AT, ATTR_U, ATTR_W } from './rights.ts';
import { SetAssociativeTlb, tlbSpace } from './tlb.ts';

const ATTR = ATTR_W | ATTR_U | ATTR_D | ATTR_HOST_ALL | (12 << ATTR_PAGE_SHIFT_AT);

let tlb: SetAssociativeTlb;
beforeEach(() => {
  tlb = new SetAssociativeTlb();
  tlb.insert(tlbSpace(1, 1), 0x1000, 0, 1, 1, ATTR);
  tlb.insert(tlbSpace(1, 1), 0x2000, 0, 2, 1, ATTR | ATTR_G);
  tlb.insert(tlbSpace(1, 2), 0x1000, 0, 3, 1, ATTR);
  tlb.insert(tlbSpace(2, 1), 0x1000, 0, 4, 1, ATTR);
});

describe('flush', () => {
  it.each([
    ['all', FLUSH_ALL, 0],
    ['asid', FLUSH_ASID, 1],
    ['non-global', FLUSH_NON_GLOBAL, 2],
    ['pcid', FLUSH_PCID, 3],
    ['gva', FLUSH_GVA, 3],
    ['single', FLUSH_SINGLE, 3],
  ])('%s', (name, kind, left) => {
    flush(tlb, kind, 1, 1, 0x1000, 0);
    expect(tlb.count()).toBe(left);
    expect(FLUSH_NAMES[kind]).toBe(name);
  });

  it('refuses what is no command', () => {
    expect(() => flush(tlb, FLUSH_KINDS, 0, 0, 0, 0)).toThrow('no flush command 6');
  });
});

describe('FlushQueue', () => {
  it('does nothing until it is applied, then counts', () => {
    const queue = new FlushQueue();
    queue.push(FLUSH_GVA, 1, 1, 0x1000, 0);
    queue.push(FLUSH_PCID, 1, 2);
    expect([tlb.count(), queue.pending]).toEqual([4, 2]);
    queue.apply(tlb);
    expect([tlb.count(), queue.pending]).toEqual([2, 0]);
    expect([...queue.done]).toEqual([0, 0, 0, 1, 1, 0]);
  });

  it('lets a full flush swallow the others', () => {
    const queue = new FlushQueue();
    queue.push(FLUSH_GVA, 1, 1, 0x1000, 0);
    queue.push(FLUSH_ALL);
    queue.push(FLUSH_ASID, 1);
    expect(queue.pending).toBe(1);
    queue.apply(tlb);
    expect(tlb.count()).toBe(0);
    expect([...queue.done]).toEqual([1, 0, 0, 0, 0, 0]);
    expect([...queue.asked]).toEqual([1, 1, 0, 0, 1, 0]);
  });

  it('becomes a full flush when it overflows', () => {
    const queue = new FlushQueue(2);
    for (let i = 0; i < 3; i++) queue.push(FLUSH_GVA, 9, 9, i << 12, 0);
    expect(queue.pending).toBe(1);
    queue.apply(tlb);
    expect(tlb.count()).toBe(0);
  });
});
