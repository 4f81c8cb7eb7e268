import { describe, expect, it } from 'vitest';
import { MemoryModel } from './memory-model.ts';
import type { HostRights, ModelAccess } from './memory-model.ts';

const P = 1n;
const W = 2n;
const U = 4n;
const A = 0x20n;
const D = 0x40n;
const ALL = P | W | U;

/** Slot 0: pages 0..15 at host page 100, with tables at 0x1000..0x4000 that map 0 to 0x8000. */
function machine(paging: 'tdp' | 'shadow' = 'tdp'): MemoryModel {
  const model = new MemoryModel(paging);
  model.setSlot({ id: 0, baseGfn: 0n, pages: 16n, hostPage: 100n });
  model.poke(0x1000n, 0x2000n | ALL);
  model.poke(0x2000n, 0x3000n | ALL);
  model.poke(0x3000n, 0x4000n | ALL);
  model.poke(0x4000n, 0x8000n | ALL);
  model.writtenHostPages.clear();
  return model;
}

const ACCESS: ModelAccess = {
  mode: 'long',
  cr0: 1n << 16n,
  cr3: 0x1000n,
  cr4: 0n,
  efer: 1n << 11n,
  pkru: 0,
  ac: false,
  cpl3: true,
  implicit: false,
  access: 'r',
  va: 0n,
  maxphyaddr: 40,
};
const WRITE: ModelAccess = { ...ACCESS, access: 'w', value: 42n };

describe('MemoryModel', () => {
  it('reaches memory through guest tables and slot, and dirties the pages of data and flags', () => {
    const model = machine();
    expect(model.perform(0, WRITE)).toMatchObject({ kind: 'memory', gpa: 0x8000n, slot: 0, hostAddress: 108n * 4096n });
    expect(model.peek(0x8000n)).toBe(42n);
    expect(model.peek(0x4000n) & (A | D)).toBe(A | D);
    expect(model.writtenHostPages).toEqual(new Set([101n, 102n, 103n, 104n, 108n]));
    model.writtenHostPages.clear();
    model.perform(0, WRITE);
    expect([...model.writtenHostPages]).toEqual([108n]);
  });

  it.each<[HostRights | 'no slot' | 'read-only slot', ModelAccess['access'], string]>([
    ['write', 'r', 'memory'],
    ['write', 'w', 'memory'],
    ['read', 'r', 'memory'],
    ['read', 'x', 'memory'],
    ['read', 'w', 'host-fault'],
    ['none', 'r', 'host-fault'],
    ['none', 'w', 'host-fault'],
    ['no slot', 'r', 'mmio'],
    ['no slot', 'w', 'mmio'],
    ['read-only slot', 'r', 'memory'],
    ['read-only slot', 'w', 'mmio'],
  ])('ends where data has %s, on %s, in %s', (where, access, kind) => {
    const model = machine();
    model.poke(0x4000n, 0x100000n | ALL);
    if (where !== 'no slot') {
      model.setSlot({ id: 1, baseGfn: 256n, pages: 1n, hostPage: 200n, readonly: where === 'read-only slot' });
    }
    if (where === 'read' || where === 'none') model.setHost(200n, where);
    expect(model.perform(0, { ...ACCESS, access }).kind).toBe(kind);
  });

  it.each<['tdp' | 'shadow', HostRights | 'no slot' | 'read-only slot', object]>([
    ['tdp', 'no slot', { kind: 'guest-fault', error: 4 }],
    ['shadow', 'no slot', { kind: 'guest-fault', error: 4 }],
    ['tdp', 'read-only slot', { kind: 'memory', gpa: 0x8000n }],
    ['shadow', 'read-only slot', { kind: 'memory', gpa: 0x8000n }],
    ['tdp', 'read', { kind: 'host-fault', gpa: 0x100000n }],
    ['shadow', 'read', { kind: 'guest-fault', error: 4 }],
    ['tdp', 'none', { kind: 'host-fault', gpa: 0x100000n }],
    ['shadow', 'none', { kind: 'guest-fault', error: 4 }],
  ])('%s: a guest table in memory with %s', (paging, where, outcome) => {
    const model = machine(paging);
    model.poke(0x3000n, 0x100000n | ALL);
    if (where !== 'no slot') {
      model.setSlot({ id: 1, baseGfn: 256n, pages: 1n, hostPage: 200n });
      model.poke(0x100000n, 0x8000n | ALL);
    }
    if (where === 'read-only slot') model.setSlot({ id: 1, baseGfn: 256n, pages: 1n, hostPage: 200n, readonly: true });
    if (where === 'read' || where === 'none') model.setHost(200n, where);
    expect(model.perform(0, ACCESS)).toMatchObject(outcome);
    expect(model.peek(0x100000n) & A).toBe(0n);
  });

  it('lets a shadow walk read a table that it can not write, if its flags are set already', () => {
    const model = machine('shadow');
    model.poke(0x4000n, 0x8000n | ALL | A);
    model.setHost(104n, 'read');
    expect(model.perform(0, ACCESS).kind).toBe('memory');
  });

  it('writes no A above a fault in KVM`s own walk, and does in the CPU`s', () => {
    for (const [paging, flags] of [
      ['tdp', A],
      ['shadow', 0n],
    ] as const) {
      const model = machine(paging);
      model.poke(0x4000n, 0n);
      expect(model.perform(0, ACCESS).kind).toBe('guest-fault');
      expect(model.peek(0x3000n) & A).toBe(flags);
    }
  });

  it('allows a stale translation until it is invalidated, on the vCPU that has it', () => {
    const model = machine();
    model.perform(0, ACCESS);
    model.poke(0x4000n, 0x9000n | ALL);
    expect(model.allowed(0, ACCESS).hostPages).toEqual(new Set([108n, 109n]));
    expect(model.allowed(1, ACCESS).hostPages).toEqual(new Set([109n]));
    model.poke(0x4000n, 0n);
    expect(model.allowed(0, ACCESS)).toEqual({ hostPages: new Set([108n]), other: { kind: 'guest-fault', error: 4 } });
    model.invalidatePage(0, 0x10n);
    expect(model.allowed(0, ACCESS).hostPages).toEqual(new Set());
  });

  it('lets an entry that a read made serve a write only if D was set by then', () => {
    const clean = machine();
    clean.perform(0, ACCESS);
    clean.poke(0x4000n, 0n);
    expect(clean.allowed(0, WRITE).hostPages).toEqual(new Set());
    const dirty = machine();
    dirty.poke(0x4000n, 0x8000n | ALL | A | D);
    dirty.perform(0, ACCESS);
    dirty.poke(0x4000n, 0n);
    expect(dirty.allowed(0, WRITE).hostPages).toEqual(new Set([108n]));
  });

  it('leaves no stale translation behind a deleted slot or a right that the host took', () => {
    const model = machine();
    model.perform(0, ACCESS);
    model.setHost(108n, 'none');
    expect(model.allowed(0, ACCESS)).toMatchObject({ hostPages: new Set(), other: { kind: 'host-fault' } });
    model.setHost(108n, 'write');
    model.perform(0, ACCESS);
    model.deleteSlot(0);
    expect(model.allowed(0, ACCESS)).toMatchObject({ hostPages: new Set(), other: { kind: 'guest-fault' } });
  });
});
