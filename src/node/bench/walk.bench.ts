/**
 * TLB hits, walks in one dimension and in two. The tables map 16 Ki pages of 4 KiB and addresses are random; hits are to
 * 256 pages, half of what the TLB holds. A sample is 100 passes over 4096 addresses.
 */
import { EPTE_A_LO, EPTE_D_LO, EPTE_MT_SHIFT, EPTE_RWX_LO } from '../../arch/ept.ts';
import { PTE_A_LO, PTE_D_LO, PTE_P_LO, PTE_U_LO, PTE_W_LO } from '../../arch/pte.ts';
import { Prng } from '../../base/prng.ts';
import { CPU_AMD, CPU_INTEL, hostView } from '../../hw/cpu-model.ts';
import { EptNestedWalker } from '../../hw/ept-nested-walker.ts';
import { EptWalker } from '../../hw/ept-walker.ts';
import { NativeWalker } from '../../hw/native-walker.ts';
import { NestedWalker } from '../../hw/nested-walker.ts';
import { PmlBuffer } from '../../hw/pml-buffer.ts';
import { ACCESS_USER, ACCESS_WRITE, CTL_NX, CTL_WP } from '../../hw/rights.ts';
import { FlatMemory, mapInArena, NON_LEAF_LO, setGuestEntry } from '../../hw/testing/tables.ts';
import { SetAssociativeTlb, tlbSpace } from '../../hw/tlb.ts';
import type { TwoDimensionalWalker } from '../../hw/two-dimensional.ts';
import { TableArena } from '../../mem/table-arena.ts';
import { type Figure, nsPer } from './figure.bench.ts';

const PAGES = 16384;
const ACCESSES = 4096;
const PASSES = 100;
const LEAF = PTE_P_LO | PTE_W_LO | PTE_U_LO | PTE_A_LO | PTE_D_LO;
const WRITE_BACK = 6;
/** The tables above it are as for AMD: P, W and U are R, W and X. */
const EPT_LEAF = EPTE_RWX_LO | (WRITE_BACK << EPTE_MT_SHIFT) | EPTE_A_LO | EPTE_D_LO;
const CONTROLS = CTL_NX | CTL_WP;
const SPACE = tlbSpace(1, 0);

function addresses(pages: number): Int32Array {
  const random = new Prng(1);
  return new Int32Array(ACCESSES).map(() => random.int(pages) << 12);
}

function mapAll(arena: TableArena, pages: number, leaf = LEAF): number {
  const root = arena.alloc();
  for (let i = 0; i < pages; i++) mapInArena(arena, root, 4, i << 12, 0, 1, i, leaf);
  return root;
}

/** The guest's tables lie above its pages: root, level 3, level 2, then the tables of level 1. */
function guestMemory(): FlatMemory {
  const memory = new FlatMemory(PAGES + 64);
  setGuestEntry(memory, PAGES, 0, PAGES + 1, NON_LEAF_LO);
  setGuestEntry(memory, PAGES + 1, 0, PAGES + 2, NON_LEAF_LO);
  for (let i = 0; i < PAGES; i++) {
    const table = PAGES + 3 + (i >> 9);
    setGuestEntry(memory, PAGES + 2, i >> 9, table, NON_LEAF_LO);
    setGuestEntry(memory, table, i & 511, i, LEAF);
  }
  return memory;
}

function makeNested(): NestedWalker {
  const arena = new TableArena();
  const npt = new NativeWalker(arena, hostView(CPU_AMD));
  return pointed(new NestedWalker(guestMemory(), CPU_AMD, npt), mapAll(arena, PAGES + 64));
}

/** The log is on; D is set everywhere, so nothing goes into it. */
function makeEpt(): EptNestedWalker {
  const arena = new TableArena();
  const pml = new PmlBuffer();
  pml.enabled = true;
  const ept = new EptWalker(arena, hostView(CPU_INTEL), { ad: true, executeOnly: true }, pml);
  return pointed(new EptNestedWalker(guestMemory(), CPU_INTEL, ept), mapAll(arena, PAGES + 64, EPT_LEAF));
}

function pointed<W extends TwoDimensionalWalker>(walker: W, root: number): W {
  walker.nptRoot = root;
  walker.cr3Lo = PAGES << 12;
  walker.setMode(4, CONTROLS);
  return walker;
}

function expectPositive(sum: number): void {
  if (sum <= 0) throw new Error('nothing was translated');
}

function nativeWalk(name: string, access: number): Figure {
  return {
    name,
    unit: 'ns',
    target: null,
    better: 'lower',
    timed: true,
    tolerance: 1.5,
    prepare() {
      const arena = new TableArena();
      const root = mapAll(arena, PAGES);
      const walker = new NativeWalker(arena, hostView(CPU_AMD));
      const far = addresses(PAGES);
      return () => {
        let sum = 0;
        const ns = nsPer(PASSES * ACCESSES, () => {
          for (let pass = 0; pass < PASSES; pass++)
            for (let i = 0; i < ACCESSES; i++) sum += walker.walk(root, 4, far[i], 0, access) + walker.pfn;
        });
        expectPositive(sum);
        return ns;
      };
    },
  };
}

function twoDimensionalWalk(name: string, make: () => TwoDimensionalWalker): Figure {
  return {
    name,
    unit: 'ns',
    target: 150,
    better: 'lower',
    timed: true,
    tolerance: 1.5,
    prepare() {
      const walker = make();
      const tlb = new SetAssociativeTlb();
      walker.flushedWith = tlb;
      const far = addresses(PAGES);
      return () => {
        let sum = 0;
        const ns = nsPer(PASSES * ACCESSES, () => {
          for (let pass = 0; pass < PASSES; pass++) {
            for (let i = 0; i < ACCESSES; i++) {
              sum += walker.walk(far[i], 0, ACCESS_USER) + walker.pfn;
              tlb.insert(SPACE, far[i], 0, walker.pfn, walker.level, walker.attr);
            }
          }
        });
        expectPositive(sum);
        return ns;
      };
    },
  };
}

export const WALK_FIGURES: readonly Figure[] = [
  {
    name: 'TLB hit',
    unit: 'ns',
    target: 10,
    better: 'lower',
    timed: true,
    tolerance: 1.5,
    prepare() {
      const tlb = new SetAssociativeTlb();
      const near = addresses(256);
      const attr = (() => {
        const arena = new TableArena();
        const walker = new NativeWalker(arena, hostView(CPU_AMD));
        walker.walk(mapAll(arena, 1), 4, 0, 0, ACCESS_USER);
        return walker.attr;
      })();
      for (const lo of near) tlb.insert(SPACE, lo, 0, lo >>> 12, 1, attr);
      return () => {
        let sum = 0;
        const ns = nsPer(PASSES * ACCESSES, () => {
          for (let pass = 0; pass < PASSES; pass++) {
            for (let i = 0; i < ACCESSES; i++) {
              if (tlb.lookup(SPACE, near[i], 0, ACCESS_USER, CONTROLS, 0)) sum += tlb.pfn + 1;
            }
          }
        });
        expectPositive(sum);
        return ns;
      };
    },
  },
  nativeWalk('one-dimensional walk, read', ACCESS_USER),
  nativeWalk('one-dimensional walk, write', ACCESS_USER | ACCESS_WRITE),
  twoDimensionalWalk('two-dimensional walk and fill', makeNested),
];

/** In a process without AMD's walker: together they would make each other's calls slower. */
export const EPT_WALK_FIGURES: readonly Figure[] = [twoDimensionalWalk('EPT: two-dimensional walk and fill', makeEpt)];
