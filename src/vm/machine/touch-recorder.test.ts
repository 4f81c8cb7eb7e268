import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { PagingName, Pc } from './pc.ts';
import { codeImage, le32, makePc, runToEnd, TINY } from './testing/guests.ts';
import { type RecordingPlan, TouchRecorder } from './touch-recorder.ts';

const SMP = readFileSync(fileURLToPath(new URL('../../../guests/smp/smp.elf', import.meta.url)));
const KINDS = 'rwx';

interface List {
  readonly touches: string[];
  readonly insns: number;
  readonly loads: number;
  readonly stores: number;
}

function recorded(
  kernel: Uint8Array,
  plan: Partial<RecordingPlan> = {},
  options: Parameters<typeof makePc>[1] = {},
): { lists: List[]; pc: Pc; recorder: TouchRecorder; populated: number[] } {
  const { pc } = makePc(kernel, { megabytes: 16, ...options, countsAccesses: true });
  const lists: List[] = [];
  const populated: number[] = [];
  let touches: string[] = [];
  const recorder = new TouchRecorder(
    pc,
    { epochInsns: 1000, start: 'power-on', maxInsns: Infinity, ...plan },
    {
      populate: (page) => populated.push(page),
      touch: (page, kind) => touches.push(`${KINDS[kind]} ${page.toString(16)}`),
      endList: (insns, loads, stores) => {
        lists.push({ touches, insns, loads, stores });
        touches = [];
      },
    },
  );
  runToEnd(pc);
  recorder.finish();
  return { lists, pc, recorder, populated };
}

const END = [0xb0, 0, 0xe6, 0xf4]; // mov al, 0; out 0xf4, al
const LOAD = (address: number): number[] => [0xa1, ...le32(address)]; // mov eax, [address]
const STORE = (address: number): number[] => [0xa3, ...le32(address)]; // mov [address], eax

describe('a recording', () => {
  // biome-ignore format: a table
  it.each<[string, number[], string[], number, number]>([
    ['a read',                           [...LOAD(0x200000)],                                       ['r 200'],                       1, 0],
    ['a write',                          [...STORE(0x200000)],                                      ['w 200'],                       0, 1],
    ['each kind once, in order',         [...LOAD(0x200000), ...STORE(0x200004), ...LOAD(0x200008), ...STORE(0x20000c)], ['r 200', 'w 200'], 2, 2],
    ['a read behind a write',            [...STORE(0x200000), ...LOAD(0x200000)],                   ['w 200', 'r 200'],              1, 1],
    ['one that reads and writes: write', [0xff, 0x05, ...le32(0x200000)],                           ['w 200'],                       1, 1],
    ['a locked exchange: a write',       [0x87, 0x05, ...le32(0x200000)],                           ['w 200'],                       1, 1],
    ['both pages of one that crosses',   [...STORE(0x200fff)],                                      ['w 200', 'w 201'],              0, 1],
    ['all pages of a repeated one',      [0xbf, ...le32(0x200000), 0xb9, ...le32(2048), 0xf3, 0xab], ['w 200', 'w 201'],             0, 2048],
    ['both ends of a copy',              [0xbf, ...le32(0x200000), 0xbe, ...le32(0x300000), 0xb9, ...le32(1024), 0xf3, 0xa5], ['r 300', 'w 200'], 1024, 1024],
    ['a device: nothing',                [...LOAD(0xfee00020)],                                     [],                              1, 0],
    ['firmware: nothing',                [...LOAD(0xa0000), ...STORE(0xf0000)],                     [],                              1, 1],
  ])('lists %s', (_, code, touches, loads, stores) => {
    const { lists } = recorded(codeImage(code, END), { epochInsns: 100_000 });
    expect(lists.map((list) => list.touches)).toEqual([['x 100', ...touches]]);
    expect([lists[0].loads, lists[0].stores]).toEqual([loads, stores]);
  });

  it('counts what it leaves out', () => {
    const { recorder } = recorded(codeImage(LOAD(0xfee00020), LOAD(0xfee00020), LOAD(0xa0000), STORE(0xa0000), END));
    expect([recorder.mmioAccesses, recorder.outsideRamAccesses]).toEqual([2, 2]);
  });

  it('lists a page again in each epoch, and cuts where the next block begins', () => {
    // mov ecx, 1000; again: inc dword [0x200000]; loop again
    const { lists, recorder, pc } = recorded(
      codeImage([0xb9, ...le32(1000)], [0xff, 0x05, ...le32(0x200000)], [0xe2, 0xf8], END),
      { epochInsns: 300 },
    );
    expect(lists.map(({ touches }) => touches)).toEqual(Array.from({ length: 7 }, () => ['x 100', 'w 200']));
    // A block is two instructions.
    for (const { insns } of lists.slice(0, -1)) expect([300, 301]).toContain(insns);
    expect(lists.reduce((sum, { insns }) => sum + insns, 0)).toBe(pc.instructions);
    expect(recorder.insns).toBe(pc.instructions);
  });

  it('knows pages that are not all zeros at the start', () => {
    const { populated, pc } = recorded(codeImage(END));
    expect(populated).toContain(0x100);
    expect(populated).not.toContain(0x200);
    expect(populated.every((page) => page < 0xa0 || page >= 0x100)).toBe(true);
    expect(pc.ram[0xe0000]).not.toBe(undefined);
  });

  it('begins at the first instruction of a page', () => {
    // mov eax, END; mov [0x102000], eax; jmp 0x102000
    const at = 0x102000 - (0x100010 + 15);
    const code = codeImage([0xb8, ...END], STORE(0x102000), [0xe9, ...le32(at)]);
    const { lists, recorder } = recorded(code, { start: 0x102800 });
    expect(lists.map(({ touches, insns }) => [touches, insns])).toEqual([[['x 102'], 2]]);
    expect(recorder.insnsBefore).toBe(3);
  });

  it('begins and ends at the guest’s marks, and notes the others', () => {
    const mark = (id: number): number[] => [0x0f, 0x1f, 0x84, 0x00, 0x50, 0x4e, 0x54, id];
    const code = [LOAD(0x300000), mark(1), STORE(0x200000), mark(7), LOAD(0x201000), mark(2), STORE(0x202000), END];
    const { lists, recorder } = recorded(codeImage(...code), { start: 'marker' });
    expect(lists.map(({ touches }) => touches)).toEqual([['x 100', 'w 200', 'r 201']]);
    expect(lists[0].insns).toBe(4);
    expect(recorder.insnsBefore).toBe(1);
    expect(recorder.marks).toEqual([1, 7, 2].map((id) => ({ id, epoch: 0 })));
  });

  it('ends after as many instructions as were asked for', () => {
    const { recorder, lists } = recorded(codeImage(0xeb, 0xfe), { epochInsns: 100, maxInsns: 1000 });
    expect([recorder.insns, lists.length, recorder.hasEnded]).toEqual([1000, 10, true]);
  });

  // biome-ignore format: a table
  it.each<[string, number[], string[]]>([
    ['not listed',                       [],                        []],
    ['no cover for what a handler pushes', [0x50],                  ['w 3ff']],
  ])('the frame of an event is %s', (_, handler, touches) => {
    const set = (address: number, value: number): number[] => [0xc7, 0x05, ...le32(address), ...le32(value)];
    const at = 0x100010 + 5 + 4 * 10 + 7 + 2;
    // mov esp, 0x400000; a gate for vector 0x20; lidt; int 0x20
    const { lists } = recorded(
      codeImage(
        [0xbc, ...le32(0x400000)],
        set(0x103100, 0x100000 | (at & 0xffff)),
        set(0x103104, (at & 0xffff0000) | 0x8e00),
        set(0x103800, 0x30000fff),
        set(0x103804, 0x10),
        [0x0f, 0x01, 0x1d, ...le32(0x103800)],
        [0xcd, 0x20],
        handler,
        END,
      ),
    );
    expect(lists.map((list) => list.touches)).toEqual([['x 100', 'w 103', 'r 103', ...touches]]);
  });
});

describe('recording', () => {
  it.each<PagingName>(['tdp-mmu', 'shadow'])('changes nothing for the guest (%s)', (paging) => {
    const { pc, console: output } = makePc(TINY, { paging, megabytes: 32 });
    runToEnd(pc);
    const { pc: other, lists } = recorded(TINY, { epochInsns: 20_000 }, { paging, megabytes: 32 });
    expect(hash(other.ram)).toBe(hash(pc.ram));
    expect(other.instructions).toBe(pc.instructions);
    expect(other.vm.verify()).toEqual([]);
    expect(output.text).toContain('ok');
    expect(lists.length).toBeGreaterThan(200);
  });

  it('is the same whatever paging the machine has', () => {
    const [first, ...others] = (['tdp', 'shadow', 'ept-no-ad'] as const).map((paging) =>
      JSON.stringify(recorded(TINY, { epochInsns: 50_000 }, { paging, megabytes: 32 }).lists),
    );
    for (const other of others) expect(other === first).toBe(true);
  });

  it('has a list for each CPU and epoch', () => {
    const { lists, pc } = recorded(SMP, { epochInsns: 5000 }, { cpus: 2, megabytes: 32, quantum: 300 });
    expect(pc.end?.reason).toBe('power-off');
    expect(lists.length % 2).toBe(0);
    for (const cpu of [0, 1]) {
      const own = lists.filter((_, i) => i % 2 === cpu);
      expect(own.reduce((sum, { insns }) => sum + insns, 0)).toBe(pc.cpus[cpu].cpu.retired);
      expect(own.some(({ touches }) => touches.length > 0)).toBe(true);
    }
  });

  it('names every page that a guest changes', () => {
    const { pc } = makePc(TINY, { megabytes: 32 });
    const before = pc.ram.slice();
    const { lists, pc: after } = recorded(TINY, {}, { megabytes: 32 });
    const written = new Set(lists.flatMap(({ touches }) => touches).filter((t) => t.startsWith('w')));
    const missed: string[] = [];
    for (let page = 0x100; page < after.ramBytes / 4096; page++) {
      const range = [page * 4096, page * 4096 + 4096] as const;
      const isChanged = !Buffer.from(before.subarray(...range)).equals(after.ram.subarray(...range));
      if (isChanged && !written.has(`w ${page.toString(16)}`)) missed.push(page.toString(16));
    }
    expect(missed).toEqual([]);
  });
});

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
