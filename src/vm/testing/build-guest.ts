/**
 * A guest with page tables of its own, for tests: the recorder's stubs and handlers in one page, tables as a test wants
 * them, and guest and host ops by their texts (`w 0x1000000 1`, `hw 0x14008 0`, `log 1 on`).
 *
 *     slot 0   gpa 0, 1 MiB, 4k     0x1000 stubs, handlers, stack     0x10000.. tables, all mapped at their own address
 *     slots from the test           mapped as the test says
 */
import type { Machine } from '../../conform/machine.ts';
import type { OpResult, RecordingHead, Script, SlotInfo } from '../../conform/recording.ts';
import { ScriptRun } from '../../conform/run.ts';
import type { Vcpu } from '../vcpu.ts';
import type { Bugs, Policy, Vm } from '../vm.ts';

export type Paging = RecordingHead['paging'];

const NOISE = 0x1000;
const NOISE_USER = 0x2000;
const FIRST_TABLE = 0x10000;
const LOW_BYTES = 0x100000;
const PRESENT = 1n;
/** P W U A: of entries that point at tables. */
const TABLE = 0x27n;

export const P = 1;
export const W = 2;
export const U = 4;
export const A = 0x20;
export const D = 0x40;
export const PS = 0x80;
/** Everything that a leaf may grant, used before. */
export const WUAD = P | W | U | A | D;

export interface SlotSpec {
  readonly id: number;
  readonly gpa: number;
  readonly bytes: number;
  readonly backing?: '4k' | '2m' | '1g' | 'thp';
  readonly flags?: number;
}

export interface MapSpec {
  readonly va: number;
  readonly gpa: number;
  /** Entries, one behind the other; 1 if absent. */
  readonly count?: number;
  /** Of the leaf; 1 if absent. */
  readonly level?: number;
  /** WUAD if absent; PS is added for large leaves. */
  readonly bits?: number;
  /** All entries map the same frame. */
  readonly same?: boolean;
  /** Number of the root; 0 if absent. */
  readonly root?: number;
}

export interface GuestOptions {
  readonly paging?: Paging;
  /** Nested paging; false (and absent): shadow paging. */
  readonly npt?: boolean;
  /** Nested paging by the TDP MMU. */
  readonly tdpMmu?: boolean;
  /** Of these the numbers are roots of nested tables: every access there is a user's. */
  readonly nestedRoots?: readonly number[];
  readonly hostLevels?: 4 | 5;
  readonly slots?: readonly SlotSpec[];
  readonly maps?: readonly MapSpec[];
  /** Values of guest memory, 8 bytes each, by gpa. */
  readonly data?: readonly (readonly [gpa: number, value: bigint])[];
  /** More changes of the guest's tables, after the maps. */
  readonly edit?: (image: GuestImage) => void;
  readonly roots?: number;
  readonly vcpus?: number;
  readonly manual?: number;
  readonly policy?: Policy;
  readonly bugs?: Bugs;
  readonly mmuPages?: number;
}

/** Guest memory before the guest runs. */
export class GuestImage {
  readonly paging: Paging;
  readonly roots: number[] = [];
  private readonly words = new Map<number, bigint>();
  private nextTable = FIRST_TABLE;

  constructor(paging: Paging) {
    this.paging = paging;
  }

  get levels(): number {
    return this.paging === 'long' ? 4 : this.paging === 'pae' ? 3 : 2;
  }
  get entryBytes(): number {
    return this.paging === '32' ? 4 : 8;
  }
  private get indexBits(): number {
    return this.paging === '32' ? 10 : 9;
  }

  put(gpa: number, value: bigint, bytes: number): void {
    const at = gpa - (gpa % 8);
    const shift = BigInt((gpa % 8) * 8);
    const mask = ((1n << BigInt(bytes * 8)) - 1n) << shift;
    this.words.set(at, ((this.words.get(at) ?? 0n) & ~mask) | ((value << shift) & mask));
  }

  get(gpa: number, bytes: number): bigint {
    const word = (this.words.get(gpa - (gpa % 8)) ?? 0n) >> BigInt((gpa % 8) * 8);
    return BigInt.asUintN(bytes * 8, word);
  }

  /** A frame for a table. */
  table(): number {
    const table = this.nextTable;
    this.nextTable += 0x1000;
    return table;
  }

  /** Where the entry for `va` at `level` stands; missing tables above it are made. */
  entry(root: number, va: number, level: number): number {
    let table = this.roots[root];
    for (let l = this.levels; ; l--) {
      const index = Math.floor(va / 2 ** (12 + this.indexBits * (l - 1))) % 2 ** this.indexBits;
      const at = table + index * this.entryBytes;
      if (l === level) return at;
      if ((this.get(at, this.entryBytes) & PRESENT) === 0n) {
        const rights = this.paging === 'pae' && l === 3 ? PRESENT : TABLE;
        this.put(at, BigInt(this.table()) | rights, this.entryBytes);
      }
      table = Number(this.get(at, this.entryBytes) & ~0xfffn);
    }
  }

  map({ va, gpa, count = 1, level = 1, bits = WUAD, same = false, root = 0 }: MapSpec): void {
    const bytes = 2 ** (12 + this.indexBits * (level - 1));
    const flags = BigInt(level > 1 ? bits | PS : bits);
    for (let i = 0; i < count; i++) {
      const frame = BigInt(same ? gpa : gpa + i * bytes);
      this.put(this.entry(root, va + i * bytes, level), frame | flags, this.entryBytes);
    }
  }

  memory(): [bigint, bigint][] {
    return [...this.words].map(([gpa, value]) => [BigInt(gpa), value]);
  }
}

/** Stub and handler code, descriptor tables. Source: recorder/src/guest.c. */
function putNoise(image: GuestImage): void {
  const STUBS = [
    [0x8b, 0x03],
    [0x89, 0x0b],
    [0x48, 0x8b, 0x03],
    [0x48, 0x89, 0x0b],
    [0x87, 0x0b],
    [0x0f, 0x01, 0x3b],
    [0x0f, 0x22, 0xdb],
    [0x0f, 0x22, 0xe3],
    [0x0f, 0x22, 0xc3],
    [0x8a, 0x03],
    [0x88, 0x0b],
    [],
  ];
  STUBS.forEach((code, i) => [...code, 0xe6, 0x10].forEach((b, j) => image.put(NOISE + 16 * i + j, BigInt(b), 1)));
  for (let i = 0; i < 6; i++) image.put(NOISE + 0x100 + 16 * i, BigInt(0xe6 | ((0x11 + i) << 8)), 2);
  image.put(0x1204, 0x1ff0n, 4);
  const handlers = new Map([
    [14, 0],
    [13, 1],
    [8, 2],
    [6, 3],
  ]);
  for (let vector = 0; vector < 32; vector++) {
    const handler = BigInt(NOISE + 0x100 + 16 * (handlers.get(vector) ?? 4));
    image.put(0x1400 + (image.paging === 'long' ? 16 : 8) * vector, 0x8e0000080000n | handler, 8);
  }
}

export class Guest {
  readonly run: ScriptRun;
  readonly image: GuestImage;
  private count = 0;

  constructor(options: GuestOptions) {
    const { paging = 'long', slots = [], maps = [], roots = 1 } = options;
    const image = new GuestImage(paging);
    this.image = image;
    putNoise(image);
    for (let root = 0; root < roots; root++) {
      image.roots.push(image.table());
      if (paging === 'none') continue;
      const isNested = options.nestedRoots?.includes(root) === true;
      image.map({ va: 0, gpa: 0, count: LOW_BYTES / 4096, root, bits: isNested ? WUAD : P | W | A | D });
      image.map({ va: NOISE_USER, gpa: NOISE, root });
    }
    for (const map of maps) image.map(map);
    for (const [gpa, value] of options.data ?? []) image.put(gpa, value, 8);
    options.edit?.(image);
    this.run = new ScriptRun(scriptOf(image, options, slots), machineOf(options), options.policy, options.bugs);
  }

  get vm(): Vm {
    return this.run.vmm.vm;
  }
  get vcpu(): Vcpu {
    return this.vm.vcpus[0];
  }

  /** Performs one op. */
  do(op: string): OpResult {
    return this.run.perform(this.count++, op);
  }

  /** Performs ops that must all end well: throws for the first that does not. */
  expectDone(...ops: readonly string[]): void {
    for (const op of ops) {
      const { exit = 'done', ret = 0 } = this.do(op).res ?? {};
      if (exit !== 'done' || ret !== 0) throw new Error(`${op}: ${exit}, ${ret}`);
    }
  }

  /** The value that a read of four bytes gives, or how it ended. */
  read(va: number): string {
    const { res } = this.do(`r ${va}`);
    return res?.value ?? res?.exit ?? 'nothing';
  }

  /** gpa of a guest entry. */
  entry(va: number, level: number, root = 0): number {
    return this.image.entry(root, va, level);
  }

  /** Guest memory as it is. */
  peek(gpa: number, bytes = 8): bigint {
    return this.run.vmm.peek(gpa, bytes) ?? 0n;
  }

  /** Performs an op; names of its events. */
  events(op: string): string[] {
    return this.do(op).events.map(({ name }) => name);
  }
}

function slotInfo({ id, gpa, bytes, backing = '4k', flags = 0 }: SlotSpec): SlotInfo {
  const hex = (n: number): string => `0x${n.toString(16)}`;
  return { id, gpa: hex(gpa), size: hex(bytes), backing, flags, hva_offset: hex(gpa % 0x200000) };
}

function scriptOf(image: GuestImage, options: GuestOptions, slots: readonly SlotSpec[]): Script {
  const { npt = false, tdpMmu = false, hostLevels = 4 } = options;
  const all = [{ id: 0, gpa: 0, bytes: LOW_BYTES }, ...slots];
  return {
    scenario: 'test',
    mode: tdpMmu ? 'B' : npt ? 'A' : 'C',
    hostLevels,
    kernel: '6.1',
    params: {},
    paging: image.paging,
    slots: all.map(slotInfo),
    roots: Object.fromEntries(image.roots.map((root, i) => [String(i), `0x${root.toString(16)}`] as const)),
    memory: image.memory(),
    results: [],
  };
}

function machineOf({ vcpus = 1, manual = 0, mmuPages = 0, nestedRoots = [] }: GuestOptions): Machine {
  return { vcpus, manual, mmuPages, ring: 0, nested: nestedRoots.length > 0, unpopulated: [], writes: [] };
}

export function buildGuest(options: GuestOptions = {}): Guest {
  return new Guest(options);
}
