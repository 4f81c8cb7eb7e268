/** The host's answers and events, held against the tables of the specification (host-mm.md). */
import { beforeEach, describe, expect, it } from 'vitest';
import { HostMm, PROT_NONE, PROT_READ, PROT_RWX } from './host-mm.ts';
import { PTE_TABLE } from './host-tables.ts';
import { FakeKvm, hvaOf, type Taken } from './testing/fake-kvm.ts';
import { verifyHost } from './verify.ts';
import { VmmMemory } from './vmm-memory.ts';

const M = 1 << 20;
const EFAULT = -14;

let mm: HostMm;
let vmm: VmmMemory;
let kvm: FakeKvm;

function start(kernel: '6.1' | '6.12' = '6.1'): void {
  mm = new HostMm({ kernel });
  vmm = new VmmMemory(mm);
  kvm = new FakeKvm(mm);
}

function region(id: number, backing: '4k' | 'thp' | '2m' | '1g', bytes: number, nopop = true): void {
  vmm.addSlot({ id, gpa: id * 0x1000000, bytes, backing, nopop, hvaoff: 0 });
}

/** `w s1+3000`: one access of the guest (r, w), of the VMM's own code (R, W), or of process_vm_readv/writev (pr, pw). */
function access(what: string): Taken | number {
  const [kind, place] = what.split(' ');
  const hva = hvaOf(place);
  if (kind === 'r' || kind === 'w') return kvm.fault(hva, kind === 'w');
  if (kind === 'R') return mm.readUser(hva, new Uint8Array(4), 4);
  if (kind === 'W') return mm.writeUser(hva, new Uint8Array(4), 4);
  return mm.pinnedAccess(hva, new Uint8Array(4), kind === 'pw');
}

/** A call `munmap s1+0 1000`, `dontneed ...`, `mprotect s1+0 1000 r`, `fork`, or an access; the events it makes. */
function call(what: string): string[] {
  const [name, place, length, protection] = what.split(' ');
  const bytes = Number.parseInt(length ?? '0', 16);
  if (name === 'fork') mm.fork();
  else if (name === 'munmap') mm.munmap(hvaOf(place), bytes);
  else if (name === 'dontneed') mm.madviseDontneed(hvaOf(place), bytes);
  else if (name === 'mprotect') mm.mprotect(hvaOf(place), bytes, prot(protection));
  else access(what);
  return kvm.take();
}

function prot(name: string): number {
  return { none: PROT_NONE, r: PROT_READ }[name] ?? PROT_RWX;
}

/** What a guest access finds: `rw 1`, `ro 2` or an errno. */
function found(what: string): string {
  const taken = access(what) as Taken;
  return taken.pfn < 0 ? `${taken.pfn}` : `${taken.writable ? 'rw' : 'ro'} ${taken.level}`;
}

beforeEach(() => start());

describe('the recording `notifier`, mode A (section 8)', () => {
  const FORKED = ['s0+0..200000', 's1+0..400000', 's2+0..200000', 's3+0..400000', 's4+0..200000', 's5+0..400000'];
  // biome-ignore format: a table
  const ROWS: [number, string, string, string[]][] = [
    [ 1, 'w s1+0',                       'rw 2', []],
    [ 3, 'w s2+0',                       'rw 1', []],
    [ 5, 'w s3+0',                       'rw 2', []],
    [ 6, 'w s3+201000',                  'rw 2', []],
    [ 7, 'r s4+0',                       'ro 1', []],
    [ 8, 'w s4+0',                       'rw 1', ['s4+0..1000', 's4+0!']],
    [ 9, 'r s4+0',                       'rw 1', []],
    [10, 'w s4+1000',                    'rw 1', []],
    [11, 'r s5+0',                       'ro 2', []],
    [12, 'w s5+0',                       'rw 1', ['s5+0..200000', 's5+0..1000', 's5+0!']],
    [13, 'w s5+200000',                  'rw 2', []],
    [14, 'dontneed s2+0 1000',           '',     ['s2+0..1000']],
    [15, 'r s2+0',                       'ro 1', []],
    [16, 'w s2+0',                       'rw 1', ['s2+0..1000', 's2+0!']],
    [17, 'r s2+1000',                    'rw 1', []],
    [18, 'dontneed s2+0 10000',          '',     ['s2+0..10000']],
    [19, 'dontneed s1+0 200000',         '',     ['s1+0..200000', 's1+0..200000']],
    [20, 'r s1+0',                       'ro 2', []],
    [21, 'w s1+0',                       'rw 2', []],
    [22, 'r s1+201000',                  'rw 2', []],
    [23, 'dontneed s3+5000 1000',        '',     ['s3+5000..6000', 's3+0..200000']],
    [24, 'r s3+0',                       'rw 1', []],
    [25, 'w s3+5000',                    'rw 1', []],
    [28, 'mprotect s2+0 10000 r',        '',     ['s2+0..200000', 's2+0..10000']],
    [29, 'r s2+1000',                    'ro 1', []],
    [30, 'w s2+1000',                    '-14',  []],
    [31, 'mprotect s2+0 10000 rw',       '',     ['s2+0..10000']],
    [32, 'w s2+1000',                    'rw 1', ['s2+1000..2000', 's2+1000!']],
    [33, 'mprotect s3+200000 200000 r',  '',     ['s3+200000..400000']],
    [34, 'r s3+201000',                  'ro 2', []],
    [35, 'mprotect s3+200000 200000 rw', '',     ['s3+200000..400000']],
    [36, 'w s3+201000',                  'rw 2', []],
    [37, 'fork',                         '',     FORKED],
    [38, 'r s2+1000',                    'ro 1', []],
    [39, 'w s2+1000',                    'rw 1', []],
    [40, 'w s3+201000',                  'rw 2', []],
    [41, 'w s1+201000',                  'rw 2', []],
    [42, 'munmap s2+8000 1000',          '',     ['s2+0..200000', 's2+8000..9000']],
    [43, 'r s2+8000',                    '-14',  []],
    [44, 'r s2+7000',                    'ro 1', []],
    [45, 'munmap s1+200000 200000',      '',     ['s1+200000..400000', 's1+200000..400000']],
    [46, 'r s1+201000',                  '-14',  []],
    [47, 'r s1+0',                       'ro 2', []],
  ];

  it('comes out op by op', () => {
    vmm.addSlot({ id: 0, gpa: 0, bytes: M, backing: '4k' });
    vmm.addSlot({ id: 1, gpa: 0x1000000, bytes: 4 * M, backing: '2m' });
    vmm.addSlot({ id: 2, gpa: 0x2000000, bytes: M, backing: '4k' });
    vmm.addSlot({ id: 3, gpa: 0x2400000, bytes: 4 * M, backing: 'thp' });
    vmm.addSlot({ id: 4, gpa: 0x2800000, bytes: M, backing: '4k', nopop: true });
    vmm.addSlot({ id: 5, gpa: 0x2a00000, bytes: 4 * M, backing: 'thp', nopop: true });
    expect(kvm.take(), 'populating makes no event').toEqual([]);
    for (const [n, what, page, events] of ROWS) {
      const isAccess = page !== '';
      expect(isAccess ? found(what) : '', `#${n} ${what}`).toBe(page);
      expect(isAccess ? kvm.take() : call(what), `#${n} ${what}`).toEqual(events);
      expect(kvm.nesting).toBe(0);
      expect(verifyHost(mm)).toEqual([]);
    }
  });
});

describe('what an access finds (section 2)', () => {
  // biome-ignore format: a table
  it.each([
    ['4k, none',                          '4k',  [],                                                       'ro 1', [], 'rw 1', []],
    ['4k, zero page',                     '4k',  ['r s1+0'],                                               'ro 1', [], 'rw 1', ['s1+0..1000', 's1+0!']],
    ['4k, page',                          '4k',  ['w s1+0'],                                               'rw 1', [], 'rw 1', []],
    ['4k, made read-only and back',       '4k',  ['w s1+0', 'mprotect s1+0 1000 r', 'mprotect s1+0 1000 rw'], 'rw 1', [], 'rw 1', []],
    ['4k, read-only',                     '4k',  ['w s1+0', 'mprotect s1+0 1000 r'],                       'ro 1', [], '-14',  []],
    ['4k, PROT_NONE',                     '4k',  ['w s1+0', 'mprotect s1+0 1000 none'],                    '-14',  [], '-14',  []],
    ['4k, no VMA',                        '4k',  ['munmap s1+0 1000'],                                     '-14',  [], '-14',  []],
    ['thp, none',                         'thp', [],                                                       'ro 2', [], 'rw 2', []],
    ['thp, huge zero',                    'thp', ['r s1+0'],                                               'ro 2', [], 'rw 1', ['s1+0..200000', 's1+0..1000', 's1+0!']],
    ['thp, THP',                          'thp', ['w s1+1000'],                                            'rw 2', [], 'rw 2', []],
    ['thp, THP after a fork',             'thp', ['w s1+1000', 'fork'],                                    'ro 2', [], 'rw 2', []],
    ['thp, made read-only and back',      'thp', ['w s1+0', 'mprotect s1+0 200000 r', 'mprotect s1+0 200000 rw'], 'ro 2', [], 'rw 2', []],
    ['thp, none, cut by a boundary',      'thp', ['mprotect s1+3000 1000 r'],                              'ro 1', [], 'rw 1', []],
    ['thp, table, none',                  'thp', ['w s1+1000', 'dontneed s1+0 1000'],                      'ro 1', [], 'rw 1', []],
    ['thp, part of a split THP',          'thp', ['w s1+1000', 'dontneed s1+3000 1000'],                   'rw 1', [], 'rw 1', []],
    ['thp, split, read-only and back',    'thp', ['w s1+1000', 'mprotect s1+0 1000 r', 'mprotect s1+0 1000 rw'], 'ro 1', [], 'rw 1', []],
    ['thp, a table dropped whole',        'thp', ['w s1+1000', 'dontneed s1+0 1000', 'dontneed s1+0 200000'], 'ro 1', [], 'rw 1', []],
    ['thp, a block dropped whole',        'thp', ['w s1+1000', 'dontneed s1+0 200000'],                    'ro 2', [], 'rw 2', []],
    ['2m, none',                          '2m',  [],                                                       'ro 2', [], 'rw 2', []],
    ['2m, page of a read',                '2m',  ['r s1+0'],                                               'ro 2', [], 'rw 2', []],
    ['2m, after a fork',                  '2m',  ['w s1+0', 'fork'],                                       'ro 2', [], 'rw 2', []],
    ['2m, made read-only and back',       '2m',  ['w s1+0', 'mprotect s1+0 200000 r', 'mprotect s1+0 200000 rw'], 'ro 2', [], 'rw 2', []],
    ['1g, none',                          '1g',  [],                                                       'ro 3', [], 'rw 3', []],
    ['1g, after a fork',                  '1g',  ['w s1+0', 'fork'],                                       'ro 3', [], 'rw 3', []],
  ] as const)('%s', (_what, backing, before, read, readEvents, write, writeEvents) => {
    for (const [kind, want, events] of [['r', read, readEvents], ['w', write, writeEvents]] as const) {
      start();
      region(1, backing, backing === '1g' ? 1024 * M : 4 * M);
      for (const step of before) call(step);
      expect(found(`${kind} s1+0`)).toBe(want);
      expect(kvm.take()).toEqual(events);
      expect(verifyHost(mm)).toEqual([]);
    }
  });

  it('is the same for the VMM: its own write to zero pages makes the same events', () => {
    region(1, 'thp', 4 * M);
    expect([access('R s1+1000'), access('W s1+1000')]).toEqual([0, 0]);
    expect(kvm.take()).toEqual(['s1+0..200000', 's1+1000..2000', 's1+1000!']);
    mm.mprotect(hvaOf('s1+0'), 0x1000, PROT_NONE);
    expect([access('R s1+0'), access('W s1+0'), access('pr s1+0'), access('pw s1+0')]).toEqual(
      new Array(4).fill(EFAULT),
    );
  });

  it('gives -EFAULT when the pool of huge pages is empty, and has it back after an unmap', () => {
    mm = new HostMm({ huge2m: 1 });
    vmm = new VmmMemory(mm);
    kvm = new FakeKvm(mm);
    region(1, '2m', 4 * M);
    expect([found('w s1+0'), found('w s1+200000')]).toEqual(['rw 2', '-14']);
    call('dontneed s1+0 200000');
    expect(found('r s1+200000')).toBe('ro 2');
  });
});

describe('writes after a fork (sections 3.3 to 3.5)', () => {
  const COPY = ['s1+0..1000', 's1+0!'];

  // biome-ignore format: a table
  it.each([
    ['a page written without a read before is reused',       ['fork'],                                     []],
    ['a page that was read first is copied',                 ['fork', 'r s1+0'],                           COPY],
    ['not after a munmap, which empties the batch',          ['fork', 'r s1+0', 'munmap s1+8000 1000'],    []],
    ['nor after a dontneed',                                 ['fork', 'r s1+0', 'dontneed s1+8000 1000'],  []],
    ['nor if it was active before the fork',                 ['r s1+0', 'fork', 'r s1+0'],                 []],
    ['nor after another fork',                               ['fork', 'r s1+0', 'fork'],                   []],
  ])('small: %s', (_what, before, events) => {
    region(1, '4k', M, false);
    mm.lru.drain();
    for (const step of before) call(step);
    expect(call('w s1+0')).toEqual(events);
  });

  // biome-ignore format: a table
  it.each([[14, COPY], [15, []]])('the batch holds 14 pages: %i read', (pages, events) => {
    region(1, '4k', M, false);
    call('fork');
    for (let i = 0; i < pages; i++) call(`r s1+${(i * 0x1000).toString(16)}`);
    expect(call('w s1+0')).toEqual(events);
  });

  it('a large folio that is activated empties the batch', () => {
    region(1, '4k', M, false);
    region(2, 'thp', 2 * M, false);
    call('fork');
    for (const step of ['r s1+0', 'r s2+0', 'r s2+0']) call(step);
    expect(call('w s1+0')).toEqual([]);
  });

  it('every first write to a page of a split THP copies, and only the first', () => {
    region(1, 'thp', 2 * M, false);
    call('dontneed s1+5000 1000');
    call('fork');
    expect(call('w s1+0')).toEqual(COPY);
    expect(call('w s1+0')).toEqual([]);
    expect(call('w s1+1000')).toEqual(['s1+1000..2000', 's1+1000!']);
  });

  // biome-ignore format: a table
  it.each([['6.1', []], ['6.12', ['s1+0..1000']]] as const)('the last page of a split THP, %s', (kernel, events) => {
    start(kernel);
    region(1, 'thp', 2 * M, false);
    call('dontneed s1+1000 1ff000');
    call('fork');
    expect(call('w s1+0')).toEqual(events);
  });

  it('a read by process_vm_readv makes the page exclusive, by a copy if the batch holds it', () => {
    region(1, '4k', M, false);
    call('fork');
    call('r s1+0');
    expect([call('pr s1+0'), call('w s1+0')]).toEqual([COPY, []]);
    expect(call('pr s1+1000')).toEqual([]);
  });
});

describe('the split event (section 1.1)', () => {
  // biome-ignore format: a table
  it.each([
    ['in an untouched region: none',                 'thp', [],                    'munmap s1+3000 1000',        ['s1+3000..4000']],
    ['in a block that holds nothing',                'thp', ['r s1+200000'],       'munmap s1+3000 1000',        ['s1+0..200000', 's1+3000..4000']],
    ['in a table of 4k memory',                      '4k',  ['w s1+0'],            'munmap s1+3000 1000',        ['s1+0..200000', 's1+3000..4000']],
    ['two cuts in two blocks, lower first',          'thp', ['w s1+0'],            'munmap s1+3000 200000',      ['s1+0..200000', 's1+200000..400000', 's1+3000..203000']],
    ['a cut at a block boundary: none',              'thp', ['w s1+0'],            'munmap s1+200000 200000',    ['s1+200000..400000']],
    ['a second cut in the same block: none',         'thp', ['w s1+0', 'munmap s1+3000 1000'], 'munmap s1+9000 1000', ['s1+9000..a000']],
    ['a boundary that moves cuts the VMA that shrinks', 'thp', ['w s1+0', 'w s1+200000', 'mprotect s1+0 200000 r'],
                                                             'mprotect s1+200000 3000 r',  ['s1+200000..400000', 's1+200000..203000']],
    ['a merge: none',                                'thp', ['w s1+0', 'mprotect s1+0 3000 r'], 'mprotect s1+0 3000 rw', ['s1+0..3000']],
  ] as const)('%s', (_what, backing, before, what, events) => {
    region(1, backing, 4 * M);
    for (const step of before) call(step);
    expect(call(what)).toEqual(events);
    expect(verifyHost(mm)).toEqual([]);
  });
});

describe('host calls (section 4)', () => {
  // biome-ignore format: a table
  it.each([
    ['dontneed of nothing mapped',                    'thp', [],                                    'dontneed s1+1000 3000',        ['s1+1000..4000']],
    ['dontneed over two THPs in part',                'thp', ['w s1+0', 'w s1+200000'],             'dontneed s1+1000 200000',      ['s1+1000..201000', 's1+0..200000', 's1+200000..400000']],
    ['dontneed over two VMAs',                        '4k',  ['mprotect s1+0 3000 r'],              'dontneed s1+1000 4000',        ['s1+1000..3000', 's1+3000..5000']],
    ['dontneed of a huge zero page in part',          'thp', ['r s1+0'],                            'dontneed s1+1000 1000',        ['s1+1000..2000', 's1+0..200000']],
    ['dontneed of hugetlb rounds its end down',       '2m',  [],                                    'dontneed s1+0 3ff000',         ['s1+0..200000', 's1+0..200000']],
    ['mprotect to what it is',                        '4k',  ['w s1+0'],                            'mprotect s1+0 3000 rw',        []],
    ['mprotect of nothing mapped',                    'thp', [],                                    'mprotect s1+0 200000 r',       []],
    ['mprotect begins at the first block that is mapped', 'thp', ['w s1+200000'],                   'mprotect s1+0 400000 r',       ['s1+200000..400000']],
    ['mprotect of hugetlb, empty',                    '2m',  [],                                    'mprotect s1+0 200000 r',       ['s1+0..200000']],
    ['munmap over several VMAs and holes',            '4k',  ['munmap s1+2000 1000', 'mprotect s1+5000 1000 r'], 'munmap s1+0 200000', ['s1+0..200000']],
    ['munmap of a hole',                              '4k',  ['munmap s1+2000 1000'],               'munmap s1+2000 1000',          []],
  ] as const)('%s', (_what, backing, before, what, events) => {
    region(1, backing, 4 * M);
    for (const step of before) call(step);
    expect(call(what)).toEqual(events);
    expect(verifyHost(mm)).toEqual([]);
  });

  it('mprotect makes one event for each GiB', () => {
    mm.mmapRegion({ base: hvaOf('s1+0'), length: 2048 * M, backing: '4k' });
    for (const place of ['s1+3ffff000', 's1+40000000']) call(`w ${place}`);
    expect(call('mprotect s1+3ffff000 2000 r').slice(2)).toEqual(['s1+3ffff000..40000000', 's1+40000000..40001000']);
  });

  // biome-ignore format: a table
  it.each([
    ['munmap of hugetlb at odd places',      '2m', () => mm.munmap(hvaOf('s1+1000'), 0x200000),                    -22],
    ['dontneed of hugetlb from an odd place','2m', () => mm.madviseDontneed(hvaOf('s1+1000'), 0x200000),           -22],
    ['dontneed of less than a huge page',    '2m', () => mm.madviseDontneed(hvaOf('s1+0'), 0x1000),                  0],
    ['mprotect of hugetlb at odd places',    '2m', () => mm.mprotect(hvaOf('s1+0'), 0x1000, PROT_READ),            -22],
    ['dontneed beyond the end',              '4k', () => mm.madviseDontneed(hvaOf('s1+3ff000'), 0x3000),           -12],
    ['mprotect beyond the end',              '4k', () => mm.mprotect(hvaOf('s1+3ff000'), 0x3000, PROT_READ),       -12],
    ['munmap beyond the end',                '4k', () => mm.munmap(hvaOf('s1+3ff000'), 0x3000),                      0],
    ['munmap of nothing',                    '4k', () => mm.munmap(hvaOf('s2+0'), 0x3000),                           0],
    ['an address within a page',             '4k', () => mm.munmap(hvaOf('s1+10'), 0x3000),                        -22],
    ['mmap over a mapping',                  '4k', () => mm.mmapRegion({ base: hvaOf('s1+0'), length: 1, backing: '4k' }), -17],
  ] as const)('%s: errno', (_what, backing, perform, errno) => {
    region(1, backing, 4 * M);
    expect(perform()).toBe(errno);
  });

  it('changes the page tables only after an event has started', () => {
    region(1, 'thp', 4 * M, false);
    let seen = -1;
    kvm.onStart = (start) => {
      seen = mm.pfnAt(start);
    };
    for (const what of ['dontneed s1+0 200000', 'munmap s1+200000 200000']) {
      call(what);
      expect(seen).toBeGreaterThan(0);
    }
    expect(mm.pfnAt(hvaOf('s1+200000'))).toBe(-1);
  });

  it('lets a block be huge again only if all its mappings went', () => {
    region(1, 'thp', 4 * M);
    for (const step of ['w s1+0', 'dontneed s1+0 1000', 'munmap s1+0 200000']) call(step);
    const pud = mm.tables.pud(hvaOf('s1+0'));
    expect((pud?.blockFlags[0] ?? 0) & PTE_TABLE).toBe(0);
    mm.mmapRegion({ base: hvaOf('s1+0'), length: 2 * M, backing: 'thp' });
    expect(found('w s1+0')).toBe('rw 2');
  });
});

describe('fork (section 5)', () => {
  // biome-ignore format: a table
  it.each([
    ['4k, untouched',       '4k',  [],                       []],
    ['4k, read',            '4k',  ['r s1+0'],               []],
    ['4k, written',         '4k',  ['w s1+0'],               ['s1+0..400000']],
    ['thp, untouched',      'thp', [],                       []],
    ['thp, read',           'thp', ['r s1+0'],               ['s1+0..400000']],
    ['2m, read',            '2m',  ['r s1+0'],               ['s1+0..400000']],
    ['dropped again',       '4k',  ['w s1+0', 'dontneed s1+0 400000'], ['s1+0..400000']],
    ['cut in three',        '4k',  ['w s1+0', 'mprotect s1+3000 1000 r'], ['s1+0..3000', 's1+3000..4000', 's1+4000..400000']],
    ['parts with anonVmas of their own stay apart', '4k', ['mprotect s1+3000 1000 r', 'w s1+0', 'w s1+4000', 'mprotect s1+3000 1000 rw'],
                                                              ['s1+0..4000', 's1+4000..400000']],
    ['parts that share one merge', 'thp', ['mprotect s1+200000 200000 r', 'r s1+200000', 'w s1+0', 'mprotect s1+200000 200000 rw'],
                                                              ['s1+0..400000']],
  ] as const)('%s', (_what, backing, before, events) => {
    region(1, backing, 4 * M);
    for (const step of before) call(step);
    expect(call('fork')).toEqual(events);
  });
});

describe('Linux 6.12 (section 9)', () => {
  beforeEach(() => start('6.12'));

  // biome-ignore format: a table
  it.each([
    ['copies without change_pte',           '4k',  ['r s1+0'],                        'w s1+0',                 ['s1+0..1000']],
    ['drops hugetlb with one event',        '2m',  ['w s1+0'],                        'dontneed s1+0 200000',   ['s1+0..200000']],
    ['unmaps hugetlb with one event',       '2m',  ['w s1+0'],                        'munmap s1+0 200000',     ['s1+0..200000']],
    ['reuses a page read after a fork',     '4k',  ['w s1+0', 'fork', 'r s1+0'],      'w s1+0',                 []],
    ['begins mprotect at the range',        'thp', ['w s1+200000'],                   'mprotect s1+0 400000 r', ['s1+0..400000']],
  ] as const)('%s', (_what, backing, before, what, events) => {
    region(1, backing, 4 * M);
    for (const step of before) call(step);
    expect(call(what)).toEqual(events);
  });

  it('makes a THP writable with its VMA', () => {
    region(1, 'thp', 4 * M, false);
    for (const protection of ['r', 'rw']) call(`mprotect s1+0 200000 ${protection}`);
    expect(found('r s1+0')).toBe('rw 2');
  });
});

describe('contents', () => {
  const bytes = new Uint8Array(8);
  const at = (place: string): number => {
    mm.readUser(hvaOf(place), bytes, 8);
    return new DataView(bytes.buffer).getUint32(0, true);
  };

  it('stay with the page through fork, copy, split and mprotect, and go with dontneed', () => {
    region(1, 'thp', 4 * M);
    vmm.poke(hvaOf('s1+ffe'), new Uint8Array([1, 2, 3, 4]));
    for (const step of ['fork', 'dontneed s1+5000 1000', 'w s1+1000', 'mprotect s1+1000 1000 r']) {
      call(step);
      expect([at('s1+ffc') >>> 16, at('s1+1000')], step).toEqual([0x201, 0x403]);
    }
    call('dontneed s1+0 2000');
    expect([at('s1+ffc'), at('s1+1000')]).toEqual([0, 0]);
  });

  it('cost nothing while they are zero, also far apart in a large region', () => {
    mm.mmapRegion({ base: 0x200000000000, length: 2 ** 40, backing: 'thp' });
    for (let i = 0; i < 64; i++) mm.touchWrite(0x200000000000 + i * 2 ** 34);
    const { chunks } = mm.save().frames;
    expect(chunks.every(([, chunk]) => chunk.pages === null)).toBe(true);
    mm.munmap(0x200000000000, 2 ** 40);
    expect([mm.tables.all().length, kvm.take().length]).toEqual([0, 1]);
    expect(verifyHost(mm)).toEqual([]);
  });

  it('of zero pages cannot be written', () => {
    region(1, '4k', M);
    const { pfn } = kvm.fault(hvaOf('s1+0'), false);
    expect(() => mm.phys.write32(pfn, 0, 1)).toThrow('zero page');
  });

  it('are read without a fault, or not at all, by readUserAtomic', () => {
    region(1, '4k', M);
    expect(mm.readUserAtomic(hvaOf('s1+0'), bytes, 4)).toBe(EFAULT);
    call('w s1+0');
    expect(mm.readUserAtomic(hvaOf('s1+0'), bytes, 4)).toBe(0);
    call('mprotect s1+0 1000 none');
    expect(mm.readUserAtomic(hvaOf('s1+0'), bytes, 4)).toBe(EFAULT);
  });
});

describe('a range that no process has', () => {
  const END = 2 ** 47 - 4096;

  beforeEach(() => start());

  it.each([-4096, 0.5, Number.NaN, Infinity, 2 ** 64])('%s is no address and no length: EINVAL', (value) => {
    const hva = hvaOf('s1+0');
    const answers = [
      mm.munmap(value, 4096),
      mm.munmap(hva, value),
      mm.mprotect(value, 4096, PROT_READ),
      mm.mprotect(hva, value, PROT_READ),
      mm.madviseDontneed(value, 4096),
      mm.madviseDontneed(hva, value),
      mm.madviseHugepage(value, 4096, true),
      mm.mmapRegion({ base: value, length: 4096, backing: '4k' }),
      mm.mmapRegion({ base: hva, length: value, backing: '4k' }),
    ];
    expect(answers).toEqual(answers.map(() => -22));
    expect(verifyHost(mm)).toEqual([]);
  });

  it('ends with user space', () => {
    expect(mm.mmapRegion({ base: END - 4096, length: 4096, backing: '4k' })).toBe(0);
    expect(mm.mmapRegion({ base: END - 8192, length: 4096, backing: '4k' })).toBe(0);
    expect(mm.mmapRegion({ base: END, length: 4096, backing: '4k' })).toBe(-12);
    expect(mm.munmap(END - 4096, 8192)).toBe(-22);
    expect(mm.munmap(END - 8192, 8192)).toBe(0);
  });

  it('has no other rights than read, write and exec', () => {
    region(1, '4k', M);
    expect(mm.mprotect(hvaOf('s1+0'), 4096, 8)).toBe(-22);
  });
});
