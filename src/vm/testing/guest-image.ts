/**
 * The small machine of the model-based tests: its slots, the guest's tables and its one page of code.
 *
 *     slot   gfn             host page        what
 *     0      0..63           1024..1087       code and stack (1), tables (16-25); never deleted
 *     1      512..1535       0..1023          two large pages
 *     2      2048..2079      1088..1119       small; may move to 3072
 *     3      4064..4607      480..1023        one large page, the second one of slot 1 once more, and some before it
 *     4      5120..5135      1120..1135       read-only
 *
 *     R0 R1 (level 4)    [0] -> L3a or L3b
 *     L3a L3b            [0] -> L2a or L2b        [1] -> nothing, L2a, L2b or a 1 GiB page of gfn 0
 *     L2a L2b            [0] -> TL                [2] [3] -> nothing, T1, T2, T3, an L2 (as if it were a T), 2 MiB pages
 *     TL                 identity of slot 0; [2]: the code page for the user
 *     T1 T2 T3           data, tables, holes
 */
import { RAX, RBX, RCX, RSP } from '../cpu-state.ts';

export const PAGE = 4096;
export const WORDS_PER_PAGE = 1024;
export const HOST_PAGES = 1136;
export const LOW_HOST_PAGE = 1024;

export interface SlotPlan {
  readonly id: number;
  readonly baseGfn: number;
  readonly pages: number;
  readonly hostPage: number;
  readonly readonly: boolean;
}

export const SLOT_PLANS: readonly SlotPlan[] = [
  { id: 0, baseGfn: 0, pages: 64, hostPage: LOW_HOST_PAGE, readonly: false },
  { id: 1, baseGfn: 512, pages: 1024, hostPage: 0, readonly: false },
  { id: 2, baseGfn: 2048, pages: 32, hostPage: 1088, readonly: false },
  { id: 3, baseGfn: 4064, pages: 544, hostPage: 480, readonly: false },
  { id: 4, baseGfn: 5120, pages: 16, hostPage: 1120, readonly: true },
];
/** Where slot 2 goes when it moves. */
export const OTHER_BASE = 3072;

export const CODE_GFN = 1;
export const KERNEL_CODE = 0x1000;
export const USER_CODE = 0x2000;
export const STACK_TOP = 0x1f00;
export const TSS_BASE = 0x1600;
export const GDT_BASE = 0x1680;
export const IDT_BASE = 0x1700;
const HANDLERS = 0x1400;

export const STUB_READ = 0x00;
export const STUB_WRITE = 0x10;
export const STUB_INVLPG = 0x20;
export const STUB_CR3 = 0x30;
export const STUB_CR4 = 0x40;
export const STUB_CR0 = 0x50;
const STUBS: readonly (readonly [number, readonly number[]])[] = [
  [STUB_READ, [0x48, 0x8b, 0x03]],
  [STUB_WRITE, [0x48, 0x89, 0x0b]],
  [STUB_INVLPG, [0x0f, 0x01, 0x3b]],
  [STUB_CR3, [0x0f, 0x22, 0xdb]],
  [STUB_CR4, [0x0f, 0x22, 0xe3]],
  [STUB_CR0, [0x0f, 0x22, 0xc3]],
];
export const PORT_DONE = 0x10;
export const PORT_PF = 0x11;
export const PORT_GP = 0x12;
export const PORT_UD = 0x14;
const PORTS: readonly (readonly [number, number])[] = [
  [14, PORT_PF],
  [13, PORT_GP],
  [8, 0x13],
  [6, PORT_UD],
];
/** Registers that the stubs use: index of the low word. */
export const GPR_RAX = 2 * RAX;
export const GPR_RBX = 2 * RBX;
export const GPR_RCX = 2 * RCX;
export const GPR_RSP = 2 * RSP;

/** In data pages: `out 0x10`, to be fetched. */
export const CODE_OFFSET = 0xf00;
export const CODE_WORD = 0xe6 | (PORT_DONE << 8);
/** Where data is read and written. In a page that is a table these are entries 1, 3 and 511. */
export const DATA_OFFSETS: readonly number[] = [0x08, 0x18, 0xff8];

export const PTE_P = 1;
export const PTE_W = 2;
export const PTE_U = 4;
export const PTE_A = 0x20;
export const PTE_D = 0x40;
export const PTE_PS = 0x80;
export const PTE_NX_HI = 1 << 31;
/** Address bit 51: beyond the guest's 40. */
export const PTE_RSVD_HI = 1 << 19;

export const ROOTS: readonly number[] = [16, 17];
export const L3A = 18;
export const L3B = 19;
export const L2A = 20;
export const L2B = 21;
export const TL = 22;
export const T1 = 23;
export const T2 = 24;
export const T3 = 25;
export const FIRST_TABLE = 16;
export const LAST_TABLE = 25;

/** Frames that level-1 entries map and that a guest without tables touches; some lie in no slot, always or at times. */
export const DATA_GFNS: readonly number[] = [
  512, 513, 514, 519, 520, 600, 1023, 1024, 1025, 1026, 1300, 1535, 4096, 4097, 2048, 2049, 2056, 2079, 3072, 3073,
  3080, 3103, 4064, 4095, 4098, 4372, 4607, 5120, 5121, 5135, 6000, 40, 41,
];
/** So many of them, from the first, are where large pages may be. */
const IN_LARGE_PAGES = 14;
/** Tables that level-1 entries may map too, so that the guest writes them through other addresses than their own. */
const TABLE_TARGETS: readonly number[] = [T1, T1, T2, T3, L2A];
const LEAF_TARGETS: readonly number[] = [...DATA_GFNS, ...TABLE_TARGETS];

/** Entries in use below T1, T2, T3. Not 0: an L2 in their place has TL there, which must stay whole. */
export const LEAF_INDICES: readonly number[] = [1, 2, 3, 4, 7, 8, 511];
const WINDOWS: readonly number[] = [0x400000, 0x600000, 0x40400000, 0x40600000];
/** Page addresses that the guest uses for data. */
export const VAS: readonly number[] = WINDOWS.flatMap((base) => LEAF_INDICES.map((i) => base + i * PAGE));

/** An entry that the guest edits, by its table's gfn. */
export interface EntryPlan {
  readonly table: number;
  readonly index: number;
  readonly level: number;
}
export const ENTRIES: readonly EntryPlan[] = [
  ...[T1, T2, T3].flatMap((table) => LEAF_INDICES.map((index) => ({ table, index, level: 1 }))),
  ...[L2A, L2B].flatMap((table) => [2, 3].map((index) => ({ table, index, level: 2 }))),
  ...[L3A, L3B].flatMap((table) => [0, 1].map((index) => ({ table, index, level: 3 }))),
  ...ROOTS.map((table) => ({ table, index: 0, level: 4 })),
];
/** Of addresses and entries a few are used most, so that what is done to one soon meets what is done with it. */
const HOT_VAS: readonly number[] = WINDOWS.flatMap((_, w) => [LEAF_INDICES.length * w, LEAF_INDICES.length * w + 1]);
const HOT_ENTRIES: readonly number[] = [
  ...[0, 1, 2].flatMap((t) => [LEAF_INDICES.length * t, LEAF_INDICES.length * t + 1]),
  ...[0, 1, 2].map((i) => 3 * LEAF_INDICES.length + i),
];

/** Index in VAS of the address that an operation's argument stands for. */
export function vaOf(b: number): number {
  return b & 0x300 ? HOT_VAS[b % HOT_VAS.length] : b % VAS.length;
}

/** Index in DATA_GFNS of the frame that a guest without tables touches: half of the time in a large page. */
export function touchedOf(b: number): number {
  return b % (b & 0x100 ? IN_LARGE_PAGES : DATA_GFNS.length);
}

/** Index in ENTRIES of the entry that an operation's argument stands for. */
export function entryOf(b: number): number {
  return b & 0x100 ? HOT_ENTRIES[b % HOT_ENTRIES.length] : b % ENTRIES.length;
}

/** Entries that the guest never edits, but in which A may appear. */
export const FIXED_ENTRIES: readonly EntryPlan[] = [L2A, L2B].map((table) => ({ table, index: 0, level: 2 }));

/** An entry's words, chosen by two numbers. */
export function entryValue(plan: EntryPlan, choice: number, bits: number): readonly [number, number] {
  const accessed = bits & 0x1c ? PTE_A : 0;
  const some = (bits & 1 ? PTE_W : 0) | (bits & 0x60 ? PTE_U : 0) | accessed;
  const nx = (bits & 0x180) === 0x180 ? PTE_NX_HI : 0;
  if (plan.level === 1) {
    if ((choice & 15) === 15) return [0, 0];
    const gfn = LEAF_TARGETS[(choice >>> 4) % LEAF_TARGETS.length];
    const dirty = bits & 0x600 ? PTE_D : 0;
    const rsvd = (bits & 0xf800) === 0xf800 ? PTE_RSVD_HI : 0;
    return [(gfn << 12) | PTE_P | some | dirty, nx | rsvd];
  }
  const wide = PTE_P | PTE_W | PTE_U | accessed;
  if (plan.level === 4) return [((choice & 1 ? L3B : L3A) << 12) | wide, 0];
  if (plan.level === 3 && plan.index === 0) return [((choice & 1 ? L2B : L2A) << 12) | wide, 0];
  const kinds = plan.level === 3 ? L3_KINDS : L2_KINDS;
  const [gfn, large] = kinds[choice % kinds.length];
  if (gfn < 0) return [0, 0];
  const rights = bits & 0x3000 ? wide : PTE_P | some;
  return [(gfn << 12) | rights | (large ? PTE_PS | (bits & 0x600 ? PTE_D : 0) : 0), nx && bits & 0x4000 ? nx : 0];
}

/** The value that an operation's last argument stands for. */
export function editValue(plan: EntryPlan, c: number): readonly [number, number] {
  return entryValue(plan, c & 0x3ff, Math.imul(c, 0x9e3779b1) >>> 16);
}

/** The last argument of an operation that sets an entry to `lo`, without NX. */
export function editArgument(plan: EntryPlan, lo: number): number {
  for (let c = 0; c < 0x400; c++) {
    const value = editValue(plan, c);
    if (value[0] === lo && value[1] === 0) return c;
  }
  throw new Error(`no edit makes an entry 0x${lo.toString(16)}`);
}

type Kind = readonly [gfn: number, large: boolean];
const L3_KINDS: readonly Kind[] = [
  [-1, false],
  [L2A, false],
  [L2B, false],
  [L2A, false],
  [0, true],
];
const L2_KINDS: readonly Kind[] = [
  [-1, false],
  [T1, false],
  [T2, false],
  [T3, false],
  [T1, false],
  [T2, false],
  [L2A, false],
  [L2B, false],
  [512, true],
  [1024, true],
  [4096, true],
];

/** Writes 32-bit words; `hostPage` and `offset` in bytes. */
export type Poke = (hostPage: number, offset: number, word: number) => void;

/** The code page: stubs, handlers, descriptor tables. */
export function writeCode(poke: Poke): void {
  const bytes = new Uint8Array(PAGE);
  for (const [at, code] of STUBS) bytes.set([...code, 0xe6, PORT_DONE], at);
  const view = new DataView(bytes.buffer);
  PORTS.forEach(([vector, port], i) => {
    const handler = HANDLERS + 16 * i;
    bytes.set([0xe6, port], handler - KERNEL_CODE);
    view.setUint16(IDT_BASE - KERNEL_CODE + 16 * vector, handler, true);
  });
  view.setUint32(TSS_BASE - KERNEL_CODE + 4, STACK_TOP, true);
  for (let offset = 0; offset < PAGE; offset += 4) {
    const word = view.getInt32(offset, true);
    if (word !== 0) poke(LOW_HOST_PAGE + CODE_GFN, offset, word);
  }
}

/** The tables as the guest starts with them. */
export function writeTables(poke: Poke): void {
  const set = (table: number, index: number, gfn: number, flags: number): void =>
    poke(LOW_HOST_PAGE + table, 8 * index, (gfn << 12) | flags | PTE_P | PTE_A);
  const wide = PTE_W | PTE_U;
  ROOTS.forEach((root, i) => set(root, 0, [L3A, L3B][i], wide));
  [L3A, L3B].forEach((table, i) => set(table, 0, [L2A, L2B][i], wide));
  [L2A, L2B].forEach((table, i) => {
    set(table, 0, TL, wide);
    set(table, 2, T1, wide);
    set(table, 3, [T2, T3][i], wide);
  });
  for (let i = 0; i < 64; i++) if (i !== 2) set(TL, i, i, PTE_W | PTE_D);
  set(TL, 2, CODE_GFN, PTE_U);
  [T1, T2, T3].forEach((table, t) =>
    LEAF_INDICES.forEach((index, i) => set(table, index, DATA_GFNS[3 * i + t], wide | PTE_D)),
  );
}

/** Marks and code in every page that holds data. Each 8-byte place gets contents of its own. */
export function writeData(poke: Poke): void {
  for (const hostPage of dataHostPages()) {
    DATA_OFFSETS.forEach((offset, i) => poke(hostPage, offset, (hostPage * 4 + i) << 1));
    poke(hostPage, CODE_OFFSET, CODE_WORD);
  }
}

/** Host pages that data accesses can reach. */
export function dataHostPages(): number[] {
  const pages = new Set<number>();
  // What 2 MiB and 1 GiB pages of the guest's map, at the places in use, is all within slots 1 and 3.
  const large = LEAF_INDICES.flatMap((i) => [i, 512 + i]);
  for (const page of large) pages.add(page);
  for (const gfn of DATA_GFNS) {
    const at = gfn >= OTHER_BASE && gfn < OTHER_BASE + 32 ? gfn - OTHER_BASE + 2048 : gfn;
    const slot = SLOT_PLANS.find((s) => at >= s.baseGfn && at < s.baseGfn + s.pages);
    if (slot) pages.add(slot.hostPage + at - slot.baseGfn);
  }
  return [...pages].sort((a, b) => a - b);
}
