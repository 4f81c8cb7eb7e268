/**
 * TLB hits, walks in one dimension and in two. The tables map 16 Ki pages of 4 KiB and addresses are random; hits are to
 * 256 pages, half of what the TLB holds. A sample is 100 passes over 4096 addresses.
 */
import { PTE_A_LO, PTE_D_LO, PTE_P_LO, PTE_U_LO, PTE_W_LO } from '../../arch/pte.ts';
import { Prng } from '../../base/prng.ts';
import { CPU_AMD, hostView } from '../../hw/cpu-model.ts';
import { NativeWalker } from '../../hw/native-walker.ts';
import { NestedWalker } from '../../hw/nested-walker.ts';
import { ACCESS_USER, ACCESS_WRITE, CTL_NX, CTL_WP } from '../../hw/rights.ts';
import { FlatMemory, mapInArena, NON_LEAF_LO, setGuestEntry } from '../../hw/testing/tables.ts';
import { SetAssociativeTlb, tlbSpace } from '../../hw/tlb.ts';
import { TableArena } from '../../mem/table-arena.ts';
import { type Figure, nsPer } from './figure.bench.ts';

const PAGES = 16384;
const ACCESSES = 4096;
const PASSES = 100;
const LEAF = PTE_P_LO | PTE_W_LO | PTE_U_LO | PTE_A_LO | PTE_D_LO;
const CONTROLS = CTL_NX | CTL_WP;
const SPACE = tlbSpace(1, 0);

function addresses(pages: number): Int32Array {
  const random = new Prng(1);
  return new Int32Array(ACCESSES).map(() => random.int(pages) << 12);
}

function mapAll(arena: TableArena, pages: number): number {
  const root = arena.alloc();
  for (let i = 0; i < pages; i++) mapInArena(arena, root, 4, i << 12, 0, 1, i, LEAF);
  return root;
}

/** The guest's tables lie above its pages: root, level 3, level 2, then the tables of level 1. */
function makeNested(): NestedWalker {
  const memory = new FlatMemory(PAGES + 64);
  setGuestEntry(memory, PAGES, 0, PAGES + 1, NON_LEAF_LO);
  setGuestEntry(memory, PAGES + 1, 0, PAGES + 2, NON_LEAF_LO);
  for (let i = 0; i < PAGES; i++) {
    const table = PAGES + 3 + (i >> 9);
    setGuestEntry(memory, PAGES + 2, i >> 9, table, NON_LEAF_LO);
    setGuestEntry(memory, table, i & 511, i, LEAF);
  }
  const arena = new TableArena();
  const walker = new NestedWalker(memory, CPU_AMD, new NativeWalker(arena, hostView(CPU_AMD)));
  walker.nptRoot = mapAll(arena, PAGES + 64);
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
  {
    name: 'two-dimensional walk and fill',
    unit: 'ns',
    target: 150,
    better: 'lower',
    timed: true,
    tolerance: 1.5,
    prepare() {
      const walker = makeNested();
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
  },
];
