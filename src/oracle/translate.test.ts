import { describe, expect, it } from 'vitest';
import {
  NPF_GUEST_FINAL,
  NPF_GUEST_PAGE,
  PF_FETCH,
  PF_KEY,
  PF_PRESENT,
  PF_RESERVED,
  PF_USER,
  PF_WRITE,
  translate,
  translateNested,
} from './translate.ts';
import type { TranslateInput } from './translate.ts';

const P = 1n;
const W = 2n;
const U = 4n;
const A = 0x20n;
const D = 0x40n;
const PS = 0x80n;
const G = 0x100n;
const NX = 1n << 63n;
const WP = 1n << 16n;
const PSE = 1n << 4n;
const LA57 = 1n << 12n;
const SMEP = 1n << 20n;
const SMAP = 1n << 21n;
const PKE = 1n << 22n;
const NXE = 1n << 11n;

/** Physical memory as a map of words, by address and size. */
class Words {
  readonly words = new Map<bigint, bigint>();
  readonly writes: bigint[] = [];
  read = (pa: bigint): bigint => this.words.get(pa) ?? 0n;
  write = (pa: bigint, _bytes: 4 | 8, value: bigint): void => {
    this.words.set(pa, value);
    this.writes.push(pa);
  };
  set(pa: bigint, value: bigint): this {
    this.words.set(pa, value);
    return this;
  }
}

const PKEY_BAD = 5n << 59n;
const ALL = P | W | U;

/** Long mode, one path by tables at 0x1000 to 0x4000 to 0x5000, all rights; `levels[i]` replaces level i's flags. */
function long(levels: Partial<Record<1 | 2 | 3 | 4, bigint>>, change: Partial<TranslateInput> = {}) {
  const memory = new Words()
    .set(0x1000n, 0x2000n | (levels[4] ?? ALL))
    .set(0x2000n, 0x3000n | (levels[3] ?? ALL))
    .set(0x3000n, 0x4000n | (levels[2] ?? ALL))
    .set(0x4000n, 0x5000n | (levels[1] ?? ALL));
  return { memory, result: translate({ ...base(memory), ...change }) };
}

function base(memory: Words): TranslateInput {
  return {
    mode: 'long',
    cr0: WP,
    cr3: 0x1000n,
    cr4: 0n,
    efer: NXE,
    pkru: 0,
    ac: false,
    cpl3: false,
    implicit: false,
    access: 'r',
    va: 0x123n,
    maxphyaddr: 40,
    read: memory.read,
    write: memory.write,
  };
}

const error = (result: ReturnType<typeof translate>): number => {
  expect(result.ok).toBe(false);
  return result.ok ? -1 : result.error;
};

describe('translate in long mode', () => {
  it('reads through four levels, combines the rights and sets A in each entry, D nowhere', () => {
    const { memory, result } = long({ 3: ALL & ~W });
    expect(result).toEqual({ ok: true, pa: 0x5123n, level: 1, writable: false, user: true, executable: true });
    expect([0x1000n, 0x2000n, 0x3000n, 0x4000n].map((pa) => memory.read(pa) & (A | D))).toEqual([A, A, A, A]);
  });

  it('sets D in the leaf of a write only, and writes no entry that has its flags already', () => {
    const first = long({}, { access: 'w' });
    expect(first.memory.read(0x4000n) & (A | D)).toBe(A | D);
    expect(first.memory.read(0x3000n) & D).toBe(0n);
    first.memory.writes.length = 0;
    translate({ ...base(first.memory), access: 'w' });
    expect(first.memory.writes).toEqual([]);
  });

  it('gives A to the entries above the one that stops the walk, or to none, as the caller chooses', () => {
    const upper = long({ 2: 0n });
    expect([0x1000n, 0x2000n, 0x3000n].map((pa) => upper.memory.read(pa) & A)).toEqual([A, A, 0n]);
    const none = long({ 2: 0n }, { accessedOnFault: 'none' });
    expect(none.memory.writes).toEqual([]);
  });

  it('maps 1 GiB and 2 MiB pages', () => {
    const giga = long({}, { va: 0x12345678n });
    giga.memory.set(0x2000n, 0x40000000n | ALL | PS);
    expect(translate({ ...base(giga.memory), va: 0x12345678n })).toMatchObject({ pa: 0x52345678n, level: 3 });
    giga.memory.set(0x2000n, 0x3000n | ALL).set(0x3000n, 0x200000n | ALL | PS);
    expect(translate({ ...base(giga.memory), va: 0x12345n })).toMatchObject({ pa: 0x212345n, level: 2 });
  });

  it('walks five levels with LA57', () => {
    const { memory } = long({});
    memory.set(0x9000n, 0x1000n | ALL);
    const input = { ...base(memory), cr3: 0x9000n, cr4: LA57 };
    expect(translate(input)).toMatchObject({ ok: true, pa: 0x5123n });
    memory.set(0x9000n, 0x1000n | ALL | PS);
    expect(error(translate(input))).toBe(PF_PRESENT | PF_RESERVED);
  });

  it.each<[string, Parameters<typeof long>[0], Partial<TranslateInput>, number | 'ok']>([
    ['not present', { 1: W | U }, {}, 0],
    ['not present, though the level above refuses', { 2: P, 1: 0n }, { cpl3: true }, PF_USER],
    ['reserved bits of an absent entry', { 1: 1n << 50n }, { access: 'w' }, PF_WRITE],
    ['address bit at maxphyaddr', { 3: ALL | (1n << 40n) }, {}, PF_PRESENT | PF_RESERVED],
    ['address bit below maxphyaddr', { 1: ALL | (1n << 39n) }, {}, 'ok'],
    ['bits 62..52', { 4: ALL | (0x7ffn << 52n) }, {}, 'ok'],
    ['PS at level 4', { 4: ALL | PS }, {}, PF_PRESENT | PF_RESERVED],
    ['bit 8 at level 4, AMD', { 4: ALL | G }, {}, PF_PRESENT | PF_RESERVED],
    ['bit 8 at level 4, Intel', { 4: ALL | G }, { vendor: 'intel' }, 'ok'],
    ['bit 8 at levels 3 and 2', { 3: ALL | G, 2: ALL | G }, {}, 'ok'],
    ['bit 13 of a 2 MiB leaf', { 2: ALL | PS | 0x2000n }, {}, PF_PRESENT | PF_RESERVED],
    ['1 GiB leaf without the feature', { 3: ALL | PS }, { gbPages: false }, PF_PRESENT | PF_RESERVED],
    ['NX without NXE', { 1: ALL | NX }, { efer: 0n }, PF_PRESENT | PF_RESERVED],
    ['reserved beats rights', { 4: P, 1: ALL | (1n << 45n) }, { cpl3: true }, PF_PRESENT | PF_USER | PF_RESERVED],
    ['user reads supervisor', { 1: P | W }, { cpl3: true }, PF_PRESENT | PF_USER],
    ['user writes read-only', { 1: P | U }, { cpl3: true, access: 'w' }, PF_PRESENT | PF_USER | PF_WRITE],
    ['implicit access at CPL 3 is a supervisor one', { 1: P }, { cpl3: true, implicit: true }, 'ok'],
    ['supervisor writes read-only, WP', { 1: P }, { access: 'w' }, PF_PRESENT | PF_WRITE],
    ['supervisor writes read-only, no WP', { 1: P }, { access: 'w', cr0: 0n }, 'ok'],
    ['fetch from NX', { 3: ALL | NX }, { access: 'x' }, PF_PRESENT | PF_FETCH],
    ['read from NX', { 3: ALL | NX }, {}, 'ok'],
    ['fetch of absent, NXE and SMEP off', { 1: 0n }, { access: 'x', efer: 0n }, 0],
    ['fetch of absent, SMEP on', { 1: 0n }, { access: 'x', efer: 0n, cr4: SMEP }, PF_FETCH],
    ['SMEP', {}, { access: 'x', cr4: SMEP }, PF_PRESENT | PF_FETCH],
    ['SMEP, supervisor page', { 1: P }, { access: 'x', cr4: SMEP }, 'ok'],
    ['SMAP', {}, { cr4: SMAP }, PF_PRESENT],
    ['SMAP, AC', {}, { cr4: SMAP, ac: true }, 'ok'],
    ['SMAP, AC, implicit', {}, { cr4: SMAP, ac: true, implicit: true }, PF_PRESENT],
    ['SMAP, WP off, write', {}, { cr4: SMAP, cr0: 0n, access: 'w' }, PF_PRESENT | PF_WRITE],
    ['SMAP does not stop a fetch', {}, { cr4: SMAP, access: 'x' }, 'ok'],
    ['key: access', { 1: ALL | PKEY_BAD }, { cr4: PKE, pkru: 1 << 10 }, PF_PRESENT | PF_KEY],
    ['key: access, CR4.PKE off', { 1: ALL | PKEY_BAD }, { pkru: 1 << 10 }, 'ok'],
    ['key: supervisor page', { 1: P | W | PKEY_BAD }, { cr4: PKE, pkru: 1 << 10 }, 'ok'],
    ['key: fetch', { 1: ALL | PKEY_BAD }, { cr4: PKE, pkru: 1 << 10, access: 'x' }, 'ok'],
    ['key: write', { 1: ALL | PKEY_BAD }, { cr4: PKE, pkru: 2 << 10, access: 'w' }, PF_PRESENT | PF_WRITE | PF_KEY],
    ['key: supervisor write, no WP', { 1: ALL | PKEY_BAD }, { cr4: PKE, pkru: 2 << 10, access: 'w', cr0: 0n }, 'ok'],
    [
      'key: user write, no WP',
      { 1: ALL | PKEY_BAD },
      { cr4: PKE, pkru: 2 << 10, access: 'w', cr0: 0n, cpl3: true },
      PF_PRESENT | PF_WRITE | PF_USER | PF_KEY,
    ],
    [
      'key and rights both refuse',
      { 1: P | U | PKEY_BAD },
      { cr4: PKE, pkru: 2 << 10, access: 'w' },
      PF_PRESENT | PF_WRITE | PF_KEY,
    ],
    ['key: read of write-disabled', { 1: ALL | PKEY_BAD }, { cr4: PKE, pkru: 2 << 10 }, 'ok'],
  ])('%s', (_name, levels, change, expected) => {
    const { result } = long(levels, change);
    expect(result.ok ? 'ok' : result.error).toBe(expected);
  });
});

describe('translate in 32-bit mode', () => {
  const input = (memory: Words, change: Partial<TranslateInput> = {}): TranslateInput => ({
    ...base(memory),
    mode: '32',
    efer: 0n,
    va: 0x00c03456n,
    ...change,
  });

  it('uses four-byte entries in two levels', () => {
    const memory = new Words().set(0x1000n + 4n * 3n, 0x2000n | ALL).set(0x2000n + 4n * 3n, 0x7000n | ALL);
    expect(translate(input(memory))).toMatchObject({ ok: true, pa: 0x7456n, level: 1 });
  });

  it('takes PS for a 4 MiB page only with CR4.PSE, whose bits 20..13 are address bits 39..32', () => {
    const memory = new Words().set(0x100cn, 0x00c00000n | (0x81n << 13n) | ALL | PS);
    expect(translate(input(memory, { cr4: PSE }))).toMatchObject({ ok: true, pa: 0x8100c03456n, level: 2 });
    expect(error(translate(input(memory, { cr4: PSE, maxphyaddr: 36 })))).toBe(PF_PRESENT | PF_RESERVED);
    expect(error(translate(input(memory, { cr4: PSE, pse36: false })))).toBe(PF_PRESENT | PF_RESERVED);
    expect(error(translate(input(memory)))).toBe(0);
  });

  it('knows no NX, and so reports a fetch only under SMEP', () => {
    const memory = new Words();
    expect(error(translate(input(memory, { access: 'x', efer: NXE })))).toBe(0);
    expect(error(translate(input(memory, { access: 'x', cr4: SMEP })))).toBe(PF_FETCH);
  });
});

describe('translate in PAE mode', () => {
  const memory = (pdpte: bigint, pde = 0x3000n | ALL, pte = 0x5000n | ALL): Words =>
    new Words().set(0x1008n, pdpte).set(0x2000n, pde).set(0x3000n, pte);
  const input = (words: Words, change: Partial<TranslateInput> = {}): TranslateInput => ({
    ...base(words),
    mode: 'pae',
    va: 0x40000123n,
    ...change,
  });

  it('gives PDPTEs no rights and no A flag', () => {
    const words = memory(0x2000n | P);
    expect(translate(input(words))).toMatchObject({ ok: true, pa: 0x5123n, writable: true, user: true });
    expect(words.read(0x1008n)).toBe(0x2001n);
  });

  it('checks reserved bits of a PDPTE that the walk reads, and none of a register', () => {
    expect(error(translate(input(memory(0x2000n | P | W))))).toBe(PF_PRESENT | PF_RESERVED);
    const pdptes = [0n, 0x2001n, 0n, 0n];
    expect(translate(input(memory(0n), { pdptes }))).toMatchObject({ ok: true, pa: 0x5123n });
    expect(error(translate(input(memory(0x2001n), { pdptes: [0n, 0n, 0n, 0n] })))).toBe(0);
  });

  it('reserves bits 62..52, which long mode leaves to software', () => {
    expect(error(translate(input(memory(0x2001n, 0x3000n | ALL | (1n << 59n)))))).toBe(PF_PRESENT | PF_RESERVED);
    expect(error(translate(input(memory(0x2001n, undefined, 0x5000n | ALL | (1n << 52n)))))).toBe(
      PF_PRESENT | PF_RESERVED,
    );
  });
});

describe('translateNested', () => {
  /** Guest physical 0x1000..0x5000 at host 0x101000.., by nested tables at 0x10000, 0x11000, 0x12000, 0x13000. */
  function setup(flags: Partial<Record<number, bigint>> = {}, change: Partial<TranslateInput> = {}) {
    const memory = new Words()
      .set(0x10000n, 0x11000n | ALL)
      .set(0x11000n, 0x12000n | ALL)
      .set(0x12000n, 0x13000n | ALL);
    for (let page = 1; page <= 5; page++) {
      memory.set(0x13000n + 8n * BigInt(page), (BigInt(page) << 12n) | 0x100000n | (flags[page] ?? ALL));
    }
    for (let page = 1n; page <= 4n; page++) memory.set(0x100000n + (page << 12n), ((page + 1n) << 12n) | ALL);
    const npt = { rootPa: 0x10000n, read: memory.read, write: memory.write, maxphyaddr: 48 };
    return { memory, result: translateNested({ guest: { ...base(memory), ...change }, npt }) };
  }

  it('translates twice, and dirties the nested leaves of the guest tables even for a read', () => {
    const { memory, result } = setup();
    expect(result).toMatchObject({ kind: 'ok', pa: 0x105123n, gpa: 0x5123n });
    expect(memory.read(0x13008n) & (A | D)).toBe(A | D);
    expect(memory.read(0x13028n) & (A | D)).toBe(A);
    expect(memory.read(0x104000n) & (A | D)).toBe(A);
  });

  it('reports a guest table in read-only memory as a user write to a guest page', () => {
    expect(setup({ 3: P | U }).result).toEqual({
      kind: 'nested-fault',
      gpa: 0x3000n,
      error: NPF_GUEST_PAGE | BigInt(PF_PRESENT | PF_WRITE | PF_USER),
    });
  });

  it.each<[string, bigint, Partial<TranslateInput>, number]>([
    ['absent page', 0n, {}, PF_USER],
    ['absent page, write', 0n, { access: 'w' }, PF_USER | PF_WRITE],
    ['read-only page', P | U, { access: 'w' }, PF_PRESENT | PF_USER | PF_WRITE],
    ['supervisor page: all nested accesses are user', P | W, {}, PF_PRESENT | PF_USER],
    ['NX page', ALL | NX, { access: 'x' }, PF_PRESENT | PF_USER | PF_FETCH],
    ['reserved bit', ALL | (1n << 50n), {}, PF_PRESENT | PF_USER | PF_RESERVED],
  ])('reports the final address: %s', (_name, flags, change, expected) => {
    expect(setup({ 5: flags }, change).result).toEqual({
      kind: 'nested-fault',
      gpa: 0x5123n,
      error: NPF_GUEST_FINAL | BigInt(expected),
    });
  });

  it('asks the guest tables first: their refusal hides the nested one', () => {
    expect(setup({ 5: 0n }, { cpl3: true, cr4: PKE, pkru: 1 }).result).toEqual({
      kind: 'guest-fault',
      error: PF_PRESENT | PF_USER | PF_KEY,
    });
  });
});
