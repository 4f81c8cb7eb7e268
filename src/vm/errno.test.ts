/**
 * Errno for errno: what KVM's memory API refuses, in the kernel's order of checks, as the real kernel was seen to answer
 * (recorder/scenarios/errors). A row names the rule it stands for (a row of the reference's tables 10.1 to 10.3), the
 * recording and the op that confirm it, and the errno; `A, C` where nested and shadow paging differ.
 *
 * Rules without a row: EFAULT of an argument that can't be read (ours are no pointers), EIO and the overflow of the number
 * of all pages (no sequence of calls leads there), and what is not built (dirty ring, TSS and identity map addresses).
 */
import { describe, expect, it } from 'vitest';
import { EEXIST, EFAULT, EINTR, EINVAL, ENOENT, ENOMEM, EPERM } from '../base/errno.ts';
import { parseMachine } from '../conform/machine.ts';
import type { PackedRecording } from '../conform/pack.ts';
import { type OpExit, type Recording, strip } from '../conform/recording.ts';
import { runScript } from '../conform/run.ts';
import { type GivenSet, givenPack } from '../conform/testing/given.ts';
import { FLAT_HVA, FlatHost } from '../mem/flat-host.ts';
import { buildVm, errnoOf } from './testing/build-vm.ts';
import { CAP_MANUAL_DIRTY_LOG_PROTECT2, CAP_VM_DISABLE_NX_HUGE_PAGES, type MemoryRegion, Vm } from './vm.ts';

type Row = readonly [
  rule: string,
  what: string,
  scenario: string,
  op: string,
  errno: number | readonly [number, number],
];

const HVA = '0x200000000000';

// biome-ignore format: a table
const ROWS: readonly Row[] = [
  ['10.1 #1',     'the last slot number',                        'bad-region', `region 32763 0 0x10000000 4K ${HVA}`,        0],
  ['10.1 #1',     'one more',                                    'bad-region', `region 32764 0 0x10000000 4K ${HVA}`,        EINVAL],
  ['10.1 #1',     "KVM's own slots",                             'bad-region', `region 32766 0 0x10000000 4K ${HVA}`,        EINVAL],
  ['10.1 #1',     'the 16 bits full',                            'bad-region', `region 0xffff 0 0x10000000 4K ${HVA}`,       EINVAL],
  ['10.1 #2',     'both flags',                                  'bad-region', `region 40 3 0x10000000 4K ${HVA}`,           0],
  ['10.1 #2',     'another flag',                                'bad-region', `region 40 4 0x10000000 4K ${HVA}`,           EINVAL],
  ['10.1 #2',     'another flag among good ones',                'bad-region', `region 40 5 0x10000000 4K ${HVA}`,           EINVAL],
  ['10.1 #2',     "the kernel's own INVALID",                    'bad-region', `region 40 0x10000 0x10000000 4K ${HVA}`,     EINVAL],
  ['10.1 #2',     'bit 31',                                      'bad-region', `region 40 0x80000000 0x10000000 4K ${HVA}`,  EINVAL],
  ['10.1 #3',     'a size of a byte',                            'bad-region', `region 40 0 0x10000000 1 ${HVA}`,            EINVAL],
  ['10.1 #3',     'a size of 2^63 + 1',                          'bad-region', `region 40 0 0x10000000 0x8000000000000001 ${HVA}`, EINVAL],
  ['10.1 #4',     'a guest address within a page',               'bad-region', `region 40 0 0x10000800 4K ${HVA}`,           EINVAL],
  ['10.1 #4',     'a guest address of 2^64 - 1',                 'bad-region', `region 40 0 -1 4K ${HVA}`,                   EINVAL],
  ['10.1 #5',     'a host address within a page',                'bad-region', 'region 40 0 0x10000000 4K 0x200000000800',   EINVAL],
  ['10.1 #5',     'the last page of user space',                 'bad-region', 'region 40 0 0x10000000 4K 0x7fffffffe000',   0],
  ['10.1 #5',     'the page behind it',                          'bad-region', 'region 40 0 0x10000000 4K 0x7ffffffff000',   EINVAL],
  ['10.1 #5',     'two pages, the second behind it',             'bad-region', 'region 40 0 0x10000000 8K 0x7fffffffe000',   EINVAL],
  ['10.1 #5',     'a host address with tag bits',                'bad-region', 'region 40 0 0x10000000 4K 0x0200200000000000', EINVAL],
  ['10.1 #5',     'a kernel address',                            'bad-region', 'region 40 0 0x10000000 4K 0xffff800000000000', EINVAL],
  ['10.1 #5',     'host address plus size wraps',                'bad-region', 'region 40 0 0x10000000 4K 0xfffffffffffff000', EINVAL],
  ['10.1 #5',     'host address 0, where nothing is mapped',     'bad-region', 'region 40 0 0x10000000 4K 0',                0],
  ['10.1 #6',     'address space 1',                             'bad-region', `region 0x10028 0 0x10000000 4K ${HVA}`,      0],
  ['10.1 #6',     'address space 2',                             'bad-region', `region 0x20028 0 0x10000000 4K ${HVA}`,      EINVAL],
  ['10.1 #6',     'address space 2^16 - 1',                      'bad-region', `region 0xffff0028 0 0x10000000 4K ${HVA}`,   EINVAL],
  ['10.1 #7',     'guest address plus size wraps to 0',          'bad-region', `region 40 0 0xfffffffffffff000 4K ${HVA}`,   EINVAL],
  ['10.1 #7',     'and beyond',                                  'bad-region', `region 40 0 0xfffffffffffff000 8K ${HVA}`,   EINVAL],
  ['10.1 #8',     '2^31 pages',                                  'bad-region', 'region 40 0 0x10000000 0x80000000000 0',     EINVAL],
  ['10.1 #9',     'deleting what is not there',                  'bad-region', `region 40 0 0x10000000 0 ${HVA}`,            EINVAL],
  ['10.1 #9',     'deleting, in the other address space',        'bad-region', 'region 0x10001 0 0 0 0',                     EINVAL],
  ['10.1 #11',    'another host address',                        'bad-region-change', 'region 2 0 0x2000000 1M 0x100200001000',     EINVAL],
  ['10.1 #11',    'another size',                                'bad-region-change', 'region 2 0 0x2000000 0xff000 0x100200000000', EINVAL],
  ['10.1 #11',    'READONLY on',                                 'bad-region-change', 'region 2 2 0x2000000 1M 0x100200000000',     EINVAL],
  ['10.1 #11',    'READONLY off',                                'bad-region-change', 'region 3 0 0x2200000 1M 0x100300000000',     EINVAL],
  ['10.1 #12',    'nothing changes',                             'bad-region-change', 'region 3 2 0x2200000 1M 0x100300000000',     0],
  ['10.1 #12',    'the log starts',                              'bad-region-change', 'region 2 1 0x2000000 1M 0x100200000000',     0],
  ['10.1 #12',    'the log of a read-only slot starts',          'bad-region-change', 'region 3 3 0x2200000 1M 0x100300000000',     0],
  ['10.1 #12',    'a move within itself',                        'bad-region-change', 'region 2 0 0x2080000 1M 0x100200000000',     0],
  ['10.1 #13',    'the same frames',                             'bad-region-change', `region 40 0 0x2000000 1M ${HVA}`,            EEXIST],
  ['10.1 #13',    'the first frame of another',                  'bad-region-change', `region 40 0 0x1fff000 8K ${HVA}`,            EEXIST],
  ['10.1 #13',    'the last frame of another',                   'bad-region-change', `region 40 0 0x20ff000 8K ${HVA}`,            EEXIST],
  ['10.1 #13',    'right before another',                        'bad-region-change', `region 40 0 0x1fff000 4K ${HVA}`,            0],
  ['10.1 #13',    'a move onto another',                         'bad-region-change', 'region 2 0 0x2200000 1M 0x100200000000',     EEXIST],
  ['10.1 #13',    'the same frames in another address space',    'bad-region-change', `region 0x10002 0 0x2000000 1M ${HVA}`,       0],
  ['10.1 #14',    'no memory for the tables',                    'bad-region-order',  'region 40 0 0x10000000 0x7fffffff000 0',     [EINVAL, ENOMEM]],
  ['10.1 #15',    'the last frame below 2^40 bytes',             'bad-region-change', `region 40 0 0xfffffff000 4K ${HVA}`,         0],
  ['10.1 #15',    'the first above',                             'bad-region-change', `region 40 0 0x10000000000 4K ${HVA}`,        [EINVAL, 0]],
  ['10.1 #15',    'the last frame below 2^52 bytes',             'bad-region-change', `region 40 0 0xffffffffff000 4K ${HVA}`,      [EINVAL, 0]],
  ['10.1 #15',    'the first above',                             'bad-region-change', `region 40 0 0x10000000000000 4K ${HVA}`,     EINVAL],
  ['10.1 #15',    'a move above it',                             'bad-region-change', 'region 2 0 0x10000000000000 1M 0x100200000000', EINVAL],
  // Two violations at once: the first in the kernel's order decides.
  ['10.1 #1/#13', 'slot number before overlap',                  'bad-region-order', `region 32764 0 0x2000000 4K ${HVA}`,         EINVAL],
  ['10.1 #2/#13', 'flags before overlap',                        'bad-region-order', `region 40 4 0x2000000 4K ${HVA}`,            EINVAL],
  ['10.1 #3/#13', 'size before overlap',                         'bad-region-order', `region 40 0 0x2000000 4097 ${HVA}`,          EINVAL],
  ['10.1 #4/#13', 'guest address before overlap',                'bad-region-order', `region 40 0 0x2000001 4K ${HVA}`,            EINVAL],
  ['10.1 #5/#13', 'host address before overlap',                 'bad-region-order', 'region 40 0 0x2000000 4K 0x7ffffffff000',    EINVAL],
  ['10.1 #6/#13', 'address space before overlap',                'bad-region-order', `region 0x20028 0 0x2000000 4K ${HVA}`,       EINVAL],
  ['10.1 #8/#13', 'number of pages before overlap',              'bad-region-order', 'region 40 0 0x2000000 0x80000000000 0',      EINVAL],
  ['10.1 #11/#13', 'host address that changes, before overlap',  'bad-region-order', 'region 2 0 0x2200000 1M 0x100200001000',     EINVAL],
  ['10.1 #11/#13', 'size that changes, before overlap',          'bad-region-order', 'region 2 0 0x2200000 8K 0x100200000000',     EINVAL],
  ['10.1 #11/#13', 'READONLY that changes, before overlap',      'bad-region-order', 'region 2 2 0x2200000 1M 0x100200000000',     EINVAL],
  ['10.1 #13/#15', 'overlap before the highest frame',           'bad-region-order', 'region 40 0 0x2000000 0x20000000000 0',      EEXIST],
  ['10.1 #13/#14', 'overlap before the memory for the tables',   'bad-region-order', 'region 40 0 0x2000000 0x7fffffff000 0',      EEXIST],
  ['10.1 #2/#9',  'flags, deleting',                             'bad-region-order', 'region 2 4 0x2000000 0 0x100200000000',      EINVAL],
  ['10.1 #4/#9',  'guest address, deleting',                     'bad-region-order', 'region 2 0 0x2000001 0 0x100200000000',      EINVAL],
  ['10.1 #5/#9',  'host address, deleting',                      'bad-region-order', 'region 2 0 0x2000000 0 0x100200000001',      EINVAL],
  ['10.1 #5/#9',  'a kernel address, deleting',                  'bad-region-order', 'region 2 0 0x2000000 0 0xfffffffffffff000',  EINVAL],
  ['10.1 #6/#9',  'address space, deleting',                     'bad-region-order', 'region 0x20002 0 0 0 0',                     EINVAL],
  ['10.1 #9',     'the rest is not looked at, deleting',         'bad-region-order', 'region 2 0 0xfffffffffffff000 0 0x7ffffffff000', 0],

  ['10.2 GET',    'slot number',                                 'bad-log', 'rawlog 32764',             EINVAL],
  ['10.2 GET',    'address space',                               'bad-log', 'rawlog 0x20001',           EINVAL],
  ['10.2 GET',    'no slot',                                     'bad-log', 'rawlog 6',                 ENOENT],
  ['10.2 GET',    'no slot in the other address space',          'bad-log', 'rawlog 0x10001',           ENOENT],
  ['10.2 GET',    'a slot that does not log',                    'bad-log', 'rawlog 2',                 ENOENT],
  ['10.2 GET',    'a slot that logs and is read-only',           'bad-log', 'rawlog 3',                 0],
  ['10.2 GET',    'slot number before the bitmap',               'bad-log', 'rawlog 32764 fault',       EINVAL],
  ['10.2 GET',    'no slot before the bitmap',                   'bad-log', 'rawlog 2 fault',           ENOENT],
  ['10.2 GET',    'a bitmap that is not there',                  'bad-log', 'rawlog 1 fault',           EFAULT],
  ['10.2 CLEAR',  'slot number',                                 'bad-log', 'rawclear 32764 0 64',      EINVAL],
  ['10.2 CLEAR',  'address space',                               'bad-log', 'rawclear 0x20001 0 64',    EINVAL],
  ['10.2 CLEAR',  'first page not a multiple of 64',             'bad-log', 'rawclear 1 1 64',          EINVAL],
  ['10.2 CLEAR',  'first page of 2^63 + 1',                      'bad-log', 'rawclear 1 0x8000000000000001 64', EINVAL],
  ['10.2 CLEAR',  'first page before no slot',                   'bad-log', 'rawclear 6 1 64',          EINVAL],
  ['10.2 CLEAR',  'first page before a slot that does not log',  'bad-log', 'rawclear 2 1 64',          EINVAL],
  ['10.2 CLEAR',  'no slot',                                     'bad-log', 'rawclear 6 0 64',          ENOENT],
  ['10.2 CLEAR',  'no slot before the range',                    'bad-log', 'rawclear 2 0 63',          ENOENT],
  ['10.2 CLEAR',  'number of pages not a multiple of 64',        'bad-log', 'rawclear 1 0 63',          EINVAL],
  ['10.2 CLEAR',  'one page too many',                           'bad-log', 'rawclear 1 0 1025',        EINVAL],
  ['10.2 CLEAR',  'first page right behind the end',             'bad-log', 'rawclear 1 1024 64',       EINVAL],
  ['10.2 CLEAR',  'first page beyond the end',                   'bad-log', 'rawclear 1 1088 0',        EINVAL],
  ['10.2 CLEAR',  'first page plus number wraps',                'bad-log', 'rawclear 1 0xffffffffffffffc0 64', EINVAL],
  ['10.2 CLEAR',  'up to the end, which is no multiple of 64',   'bad-log', 'rawclear 4 0 100',         0],
  ['10.2 CLEAR',  'not up to that end',                          'bad-log', 'rawclear 4 64 35',         EINVAL],
  ['10.2 CLEAR',  'rounded up beyond that end',                  'bad-log', 'rawclear 4 64 64',         EINVAL],
  ['10.2 CLEAR',  'range before the bitmap',                     'bad-log', 'rawclear 1 0 63 fault',    EINVAL],
  ['10.2 CLEAR',  'a bitmap that is not there',                  'bad-log', 'rawclear 1 0 64 fault',    EFAULT],
  ['10.2 CLEAR',  'no pages need no bitmap',                     'bad-log', 'rawclear 1 1024 0 fault',  0],
  ['10.2 CAP',    'bit 1 alone',                                 'bad-cap', 'cap 168 0 2',              EINVAL],
  ['10.2 CAP',    'an unknown bit',                              'bad-cap', 'cap 168 0 5',              EINVAL],
  ['10.2 CAP',    'an unknown bit beyond the 32nd',              'bad-cap', 'cap 168 0 0x100000001',    EINVAL],
  ['10.2 CAP',    'flags',                                       'bad-cap', 'cap 168 1 1',              EINVAL],
  ['10.2 CAP',    'on',                                          'bad-cap', 'cap 168 0 1',              0],
  ['10.2 CAP',    'on, initially set',                           'bad-cap', 'cap 168 0 3',              0],
  ['10.2 CAP',    'off',                                         'bad-cap', 'cap 168 0 0',              0],
  ['10.2 CAP',    'the obsolete one',                            'bad-cap', 'cap 166 0 1',              EINVAL],
  ['10.2 CAP',    'unknown',                                     'bad-cap', 'cap 9999 0 0',             EINVAL],

  ['10.3 PAGES',  'fewer than 64',                               'bad-cap', 'mmupages 63',              EINVAL],
  ['10.3 PAGES',  '64',                                          'bad-cap', 'mmupages 64',              0],
  ['10.3 PAGES',  '2^64 - 1',                                    'bad-cap', 'mmupages 0xffffffffffffffff', 0],
  ['10.3 NX',     'an argument',                                 'bad-cap', 'cap 220 0 1',              EINVAL],
  ['10.3 NX',     'vCPUs are there',                             'bad-cap', 'cap 220 0 0',              EINVAL],
  ['10.3 RUN',    'the host has no memory there: read',          'notifier', 'r 0x2008000',             EFAULT],
  ['10.3 RUN',    'the host has no memory there: write',         'notifier', 'w 0x2001000 16',          EFAULT],
  ['10.3 RUN',    'immediate_exit',                              'translate-long', 'immediate',         EINTR],
];

const SETS: readonly GivenSet[] = ['6.1-errors', '6.1-core'];
const PACKED = SETS.flatMap((set) => givenPack(set)).filter(({ mode }) => mode !== 'B');

interface Pair {
  readonly packed: PackedRecording;
  readonly recorded: Recording;
  readonly ours: Recording;
}

const pairs = new Map<string, Pair>();

/** A recording, and our run of its script. */
function pairOf(name: string): Pair {
  let pair = pairs.get(name);
  if (pair === undefined) {
    const packed = PACKED.find((candidate) => candidate.name === name);
    if (packed === undefined) throw new Error(`no ${name}`);
    const recorded = packed.load();
    pair = { packed, recorded, ours: runScript(strip(recorded), parseMachine(packed.settings)) };
    pairs.set(name, pair);
  }
  return pair;
}

/** The errno of a result, 0 if there is none. */
function errnoIn(res: OpExit | undefined): number {
  return res?.errno ?? (res?.ret !== undefined && res.ret < 0 ? -res.ret : 0);
}

describe('the errno table', () => {
  it.each(ROWS)('%s: %s', (_rule, _what, scenario, op, errno) => {
    for (const [i, mode] of ['A', 'C'].entries()) {
      const { recorded, ours } = pairOf(`${scenario}.${mode}`);
      const want = typeof errno === 'number' ? errno : errno[i];
      const at = recorded.results.findIndex((result) => result.op === op);
      expect([mode, op, errnoIn(recorded.results[at]?.res)]).toEqual([mode, op, want]);
      expect([mode, op, errnoIn(ours.results[at]?.res)]).toEqual([mode, op, want]);
    }
  });

  it('names each of its ops in a recording', () => {
    for (const [, , scenario, op] of ROWS)
      expect(pairOf(`${scenario}.A`).recorded.results.map((result) => result.op)).toContain(op);
  });
});

describe('every answer of the recorded bad calls', () => {
  const names = PACKED.filter(({ name }) => givenPack('6.1-errors').some((packed) => packed.name === name));

  it.each(names.map(({ name }) => name))('is ours in %s', (name) => {
    const { recorded, ours } = pairOf(name);
    const answers = (recording: Recording): unknown[] =>
      recording.results.map(({ n, op, res, bitmap }) => ({ n, op, res, bitmap }));
    expect(answers(ours)).toEqual(answers(recorded));
  });
});

describe('what only a caller from JavaScript can ask', () => {
  const REGION: MemoryRegion = { slot: 9, flags: 0, guestPhysAddr: 2 ** 30, memorySize: 4096, userspaceAddr: FLAT_HVA };
  const NONSENSE = [-1, 0.5, Number.NaN, Infinity, 2 ** 64, -(2n ** 63n), 2n ** 64n];

  it.each(NONSENSE)('%s fits no field of a region: EINVAL', (value) => {
    const { vm } = buildVm();
    for (const field of ['guestPhysAddr', 'memorySize', 'userspaceAddr'] as const)
      expect([field, errnoOf(() => vm.setUserMemoryRegion({ ...REGION, [field]: value }))]).toEqual([field, EINVAL]);
    for (const field of ['slot', 'flags'] as const)
      expect(errnoOf(() => vm.setUserMemoryRegion({ ...REGION, [field]: Number(value) }))).toBe(EINVAL);
  });

  it.each(NONSENSE)('%s fits no other argument: EINVAL', (value) => {
    const { vm, vcpu } = buildVm({ flags: 1 });
    const words = new Int32Array(2);
    expect(errnoOf(() => vm.getDirtyLog(Number(value)))).toBe(EINVAL);
    expect(errnoOf(() => vm.clearDirtyLog(Number(value), 0, 64, words))).toBe(EINVAL);
    expect(errnoOf(() => vm.clearDirtyLog(0, value, 64, words))).toBe(EINVAL);
    expect(errnoOf(() => vm.clearDirtyLog(0, 0, Number(value), words))).toBe(EINVAL);
    expect(errnoOf(() => vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, value))).toBe(EINVAL);
    expect(errnoOf(() => vm.enableCap(Number(value), 0))).toBe(EINVAL);
    expect(errnoOf(() => vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, 0, Number(value)))).toBe(EINVAL);
    expect(errnoOf(() => vm.setNrMmuPages(value))).toBe(EINVAL);
    expect(errnoOf(() => vcpu.touchPage(Number(value), 0))).toBe(EINVAL);
    expect(errnoOf(() => vcpu.touchPage(0, Number(value)))).toBe(EINVAL);
    expect(vm.checkExtension(Number(value))).toBe(0);
  });

  it('a bigint is as good as a number', () => {
    const { vm } = buildVm();
    const wide = { ...REGION, guestPhysAddr: 1n << 30n, memorySize: 4096n, userspaceAddr: BigInt(FLAT_HVA) };
    vm.setUserMemoryRegion(wide);
    expect(errnoOf(() => vm.setUserMemoryRegion(REGION))).toBe(0);
    vm.setUserMemoryRegion({ ...wide, flags: 1 });
    vm.clearDirtyLog(9, 0n, 1, new Int32Array(2));
    vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, 3n);
    vm.setNrMmuPages(100n);
    expect(vm.getNrMmuPages()).toBe(100);
  });

  it('a bitmap that is too short is as one that is not there: EFAULT, and nothing is cleared', () => {
    const { vm, vcpu } = buildVm({ flags: 1 });
    vcpu.touchPage(1, 1);
    expect(errnoOf(() => vm.clearDirtyLog(0, 0, 128, new Int32Array(3).fill(-1)))).toBe(EFAULT);
    expect(vm.getDirtyLog(0)[0]).toBe(2);
  });

  it('the number of shadow pages is an int, and may be an errno', () => {
    const { vm } = buildVm();
    vm.setNrMmuPages(2 ** 31);
    expect(vm.getNrMmuPages()).toBe(-(2 ** 31));
    vm.setNrMmuPages(2n ** 64n - 1n);
    expect(errnoOf(() => vm.getNrMmuPages())).toBe(EPERM);
  });

  it('huge pages may become executable before there are vCPUs, for good', () => {
    const vm = new Vm({ host: new FlatHost({ bytes: 2 ** 21, level: 2 }), npt: true, nxHugePages: true });
    expect(errnoOf(() => vm.enableCap(CAP_VM_DISABLE_NX_HUGE_PAGES, 0))).toBe(0);
    expect(vm.mmu.nxHugePages).toBe(false);
    vm.setNxHugePages(false);
    vm.setNxHugePages(true);
    expect(vm.mmu.nxHugePages).toBe(false);
    vm.createVcpu();
    expect(errnoOf(() => vm.enableCap(CAP_VM_DISABLE_NX_HUGE_PAGES, 0))).toBe(EINVAL);
  });

  it('a page is touched under nested paging only, and where there is memory', () => {
    const { vcpu } = buildVm({ pages: 512, flags: 2 });
    expect(errnoOf(() => vcpu.touchPage(0, 0))).toBe(0);
    expect(errnoOf(() => vcpu.touchPage(0, 1))).toBe(EFAULT);
    expect(errnoOf(() => vcpu.touchPage(512, 0))).toBe(EFAULT);
    expect(errnoOf(() => vcpu.touchPage(2 ** 28 - 1, 0))).toBe(EFAULT);
    expect(errnoOf(() => vcpu.touchPage(2 ** 28, 0))).toBe(EINVAL);
    expect(errnoOf(() => vcpu.touchPage(2 ** 32, 0))).toBe(EINVAL);
    const shadow = new Vm({ host: new FlatHost({ bytes: 2 ** 21, level: 2 }), npt: false });
    expect(errnoOf(() => shadow.createVcpu().touchPage(0, 0))).toBe(EINVAL);
  });

  it('a VM has 1024 vCPUs at most', () => {
    const { vm } = buildVm({ pages: 0, vcpus: 1024 });
    expect(errnoOf(() => vm.createVcpu())).toBe(EINVAL);
  });
});
