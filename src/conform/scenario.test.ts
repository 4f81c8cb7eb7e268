import { describe, expect, it } from 'vitest';
import { type Op, parseNumber, parseOp, ScenarioError, splitWords } from './scenario.ts';
import { givenPack } from './testing/given.ts';

const U64_MAX = 0xffffffffffffffffn;

describe('a number of a scenario', () => {
  // biome-ignore format: a table
  it.each([
    ['0',                     0n],
    ['42',                    42n],
    ['0x1F',                  0x1fn],
    ['0X1f',                  0x1fn],
    ['017',                   15n],
    ['1K',                    1024n],
    ['0x10M',                 0x1000000n],
    ['1G',                    0x40000000n],
    ['010K',                  8192n],
    ['+5',                    5n],
    ['-1',                    U64_MAX],
    ['18446744073709551615',  U64_MAX],
    ['18446744073709551616',  U64_MAX],
    ['-18446744073709551616', U64_MAX],
    ['0xffffffffffffffffK',   U64_MAX - 1023n],
    ['',                      0n],
    ['K',                     0n],
  ])('%j is %d, as strtoull with base 0 and a suffix reads it', (text, value) => {
    expect(parseNumber(text)).toBe(value);
  });

  it.each(['x', '0x', '09', '1k', '1KK', '1 K', '-', '0b1', '1.5', '0xg', 'K1'])('%j is refused', (text) => {
    expect(() => parseNumber(text)).toThrow(new ScenarioError(`bad number '${text}'`));
  });
});

describe('the words of a line', () => {
  it('end at a comment', () => {
    expect(splitWords(' r\t0x1000  user # r 0x2000\r\n')).toEqual(['r', '0x1000', 'user']);
  });

  it('are 64 at most', () => {
    expect(splitWords('w '.repeat(80))).toHaveLength(64);
  });
});

describe('an op', () => {
  // biome-ignore format: a table
  it.each<[string, Op]>([
    ['r 0x1000',                { kind: 'r', bytes: 4, va: 0x1000n, user: false }],
    ['r 0x1000 user',           { kind: 'r', bytes: 4, va: 0x1000n, user: true }],
    ['r8 0xffff800000000001',   { kind: 'r', bytes: 1, va: 0xffff800000000001n, user: false }],
    ['r64 1M user',             { kind: 'r', bytes: 8, va: 0x100000n, user: true }],
    ['w 0x1000 2',              { kind: 'w', bytes: 4, va: 0x1000n, value: 2n, user: false }],
    ['w8 0x1000 0x10e6',        { kind: 'w', bytes: 1, va: 0x1000n, value: 0x10e6n, user: false }],
    ['w64 0x1000 -1 user',      { kind: 'w', bytes: 8, va: 0x1000n, value: U64_MAX, user: true }],
    ['xchg 0x1000 6',           { kind: 'xchg', va: 0x1000n, value: 6n, user: false }],
    ['x 0x1000 user',           { kind: 'x', va: 0x1000n, user: true }],
    ['nop',                     { kind: 'nop', user: false }],
    ['nop user',                { kind: 'nop', user: true }],
    ['invlpg 0x1000 user',      { kind: 'invlpg', va: 0x1000n }],
    ['cr3 1',                   { kind: 'cr3', root: 1n }],
    ['cr3 0x10000',             { kind: 'cr3', root: 0x10000n }],
    ['cr4 0x100020',            { kind: 'cr4', value: 0x100020n }],
    ['cr0 0x80010031',          { kind: 'cr0', value: 0x80010031n }],
    ['vcpu 1',                  { kind: 'vcpu', vcpu: 1 }],
    ['log 1 on',                { kind: 'log', slot: 1, on: true }],
    ['log 1 off',               { kind: 'log', slot: 1, on: false }],
    ['ro 2 on',                 { kind: 'ro', slot: 2, on: true }],
    ['getlog 31',               { kind: 'getlog', slot: 31 }],
    ['clearlog 1 64 128',       { kind: 'clearlog', slot: 1, first: 64n, count: 128n, mask: U64_MAX }],
    ['clearlog 1 0 64 mask=0xf', { kind: 'clearlog', slot: 1, first: 0n, count: 64n, mask: 0xfn }],
    ['del 3',                   { kind: 'del', slot: 3 }],
    ['move 3 0x1400000',        { kind: 'move', slot: 3, gpa: 0x1400000n }],
    ['dontneed 1 0 2M',         { kind: 'dontneed', slot: 1, offset: 0n, length: 0x200000n }],
    ['munmap 1 0x1000 4K',      { kind: 'munmap', slot: 1, offset: 0x1000n, length: 0x1000n }],
    ['populate 1 0 0x1000',     { kind: 'populate', slot: 1, offset: 0n, length: 0x1000n }],
    ['mprotect 1 0 4K rx',      { kind: 'mprotect', slot: 1, offset: 0n, length: 0x1000n, prot: 'rx' }],
    ['fork',                    { kind: 'fork' }],
    ['hw 0x1000 0x100000002',   { kind: 'hw', gpa: 0x1000n, value: 2n }],
    ['hr 0x1000',               { kind: 'hr', gpa: 0x1000n }],
    ['mmupages 64',             { kind: 'mmupages', pages: 64n }],
    ['getmmupages',             { kind: 'getmmupages' }],
    ['region 40 1 0x1000 4K -1', { kind: 'region', slot: 40, flags: 1, gpa: 0x1000n, size: 0x1000n, hva: U64_MAX }],
    ['region -1 -1 -1 -1 0',    { kind: 'region', slot: 2 ** 32 - 1, flags: 2 ** 32 - 1, gpa: U64_MAX, size: U64_MAX, hva: 0n }],
    ['rawlog 0x100000001',      { kind: 'rawlog', slot: 1, fault: false }],
    ['rawlog 1 fault',          { kind: 'rawlog', slot: 1, fault: true }],
    ['rawclear 1 -64 0x100000040', { kind: 'rawclear', slot: 1, first: U64_MAX - 63n, count: 64, mask: U64_MAX, fault: false }],
    ['rawclear 1 0 64 mask=0x3 fault', { kind: 'rawclear', slot: 1, first: 0n, count: 64, mask: 3n, fault: true }],
    ['cap 168 0 -1',            { kind: 'cap', cap: 168, flags: 0, argument: U64_MAX }],
    ['check 10',                { kind: 'check', cap: 10n }],
    ['translate 0x1000',        { kind: 'translate', va: 0x1000n }],
    ['immediate',               { kind: 'immediate' }],
    ['param nx_huge_pages off', { kind: 'param', name: 'nx_huge_pages', value: 'off' }],
  ])('%s', (text, op) => {
    expect(parseOp(text)).toEqual(op);
  });

  it('slot takes its options in any order and knows its default offset', () => {
    expect(parseOp('slot 2 0x2003000 1M 4k nopop ro log')).toEqual({
      kind: 'slot',
      slot: 2,
      gpa: 0x2003000n,
      size: 0x100000n,
      backing: '4k',
      readOnly: true,
      log: true,
      nopop: true,
      hvaOffset: 0x3000n,
    });
    expect(parseOp('slot 2 0x2003000 4M 2m hvaoff=0x1000')).toMatchObject({ backing: '2m', hvaOffset: 0x1000n });
  });

  it('wpte does its edits in order, and user is none of them', () => {
    expect(parseOp('wpte 1 0x1000 2 =0x10 ~0x2000 @0x3000 +PWN -0x40 user +')).toEqual({
      kind: 'wpte',
      root: 1,
      va: 0x1000n,
      level: 2,
      edits: [
        { kind: 'set', value: 0x10n },
        { kind: 'copy', va: 0x2000n },
        { kind: 'frame', gpa: 0x3000n },
        { kind: 'add', bits: (1n << 63n) | 3n },
        { kind: 'clear', bits: 0x40n },
        { kind: 'add', bits: 0n },
      ],
      user: true,
    });
  });

  it('is read as the recorder reads it where it is odd', () => {
    expect(parseOp('slot 1 0 1M huge')).toMatchObject({ backing: '4k' });
    expect(parseOp('log 1 yes')).toMatchObject({ on: false });
    expect(parseOp('mprotect 1 0 4K x')).toMatchObject({ prot: 'rw' });
    expect(parseOp('r 0x1000 4 more words')).toMatchObject({ va: 0x1000n });
  });

  // biome-ignore format: a table
  it.each([
    ['',                 'an op without a word'],
    ['jump 0x1000',      "unknown op 'jump'"],
    ['constructor 1',    "unknown op 'constructor'"],
    ['r',                'r: argument 1 is missing'],
    ['w 0x1000',         'w: argument 2 is missing'],
    ['w 0x1000 user',    "bad number 'user'"],
    ['getlog 32',        'no slot 32'],
    ['vcpu 4',           'no vcpu 4'],
    ['wpte 16 0 1 +P',   'no root 16'],
    ['wpte 0 0 5 +P',    'wpte: no level 5'],
    ['wpte 0 0 1 @here', "bad number 'here'"],
    ['log 1',            'log: argument 2 is missing'],
  ])('%j is refused', (text, message) => {
    expect(() => parseOp(text)).toThrow(new ScenarioError(message));
  });
});

describe('the given recordings', () => {
  it.each(['6.1-core', '6.1-errors', '6.1-random'] as const)('of %s have no op that is refused', (set) => {
    const kinds = new Set(givenPack(set).flatMap((packed) => packed.opTexts().map((text) => parseOp(text).kind)));
    expect(kinds.size).toBeGreaterThan(set === '6.1-errors' ? 12 : 20);
  });
});
