/**
 * How long a walk and a TLB hit take. Bundled first, because that is how the package runs:
 *
 *     npx esbuild src/hw/walk.bench.ts --bundle --platform=node --format=esm --outfile=out/bench.mjs && node out/bench.mjs
 *
 * The tables map 16 Ki pages of 4 KiB; addresses are random. One iteration is 4096 accesses.
 */
import { Bench } from 'tinybench';
import { PTE_A_LO, PTE_D_LO, PTE_P_LO, PTE_U_LO, PTE_W_LO } from '../arch/pte.ts';
import { Prng } from '../base/prng.ts';
import { TableArena } from '../mem/table-arena.ts';
import { CPU_AMD, hostView } from './cpu-model.ts';
import { NativeWalker } from './native-walker.ts';
import { NestedWalker } from './nested-walker.ts';
import { ACCESS_USER, ACCESS_WRITE, CTL_NX, CTL_WP } from './rights.ts';
import { FlatMemory, mapInArena, NON_LEAF_LO, setGuestEntry } from './testing/tables.ts';
import { SetAssociativeTlb, tlbSpace } from './tlb.ts';

const PAGES = 16384;
const ACCESSES = 4096;
const LEAF = PTE_P_LO | PTE_W_LO | PTE_U_LO | PTE_A_LO | PTE_D_LO;

const random = new Prng(1);
const far = new Int32Array(ACCESSES).map(() => random.int(PAGES) << 12);
const near = new Int32Array(ACCESSES).map(() => random.int(256) << 12);

const arena = new TableArena();
const root = arena.alloc();
for (let i = 0; i < PAGES; i++) mapInArena(arena, root, 4, i << 12, 0, 1, i, LEAF);
const native = new NativeWalker(arena, hostView(CPU_AMD));

// The guest's tables lie above its pages: root, level 3, level 2, then the tables of level 1.
const memory = new FlatMemory(PAGES + 64);
setGuestEntry(memory, PAGES, 0, PAGES + 1, NON_LEAF_LO);
setGuestEntry(memory, PAGES + 1, 0, PAGES + 2, NON_LEAF_LO);
for (let i = 0; i < PAGES; i++) {
  const table = PAGES + 3 + (i >> 9);
  setGuestEntry(memory, PAGES + 2, i >> 9, table, NON_LEAF_LO);
  setGuestEntry(memory, table, i & 511, i, LEAF);
}
const nested = new NestedWalker(memory, CPU_AMD, new NativeWalker(arena, hostView(CPU_AMD)));
nested.nptRoot = arena.alloc();
for (let i = 0; i < PAGES + 64; i++) mapInArena(arena, nested.nptRoot, 4, i << 12, 0, 1, i, LEAF);
nested.cr3Lo = PAGES << 12;
nested.setMode(4, CTL_NX | CTL_WP);

const tlb = new SetAssociativeTlb();
const space = tlbSpace(1, 0);
for (const lo of near) {
  native.walk(root, 4, lo, 0, ACCESS_USER);
  tlb.insert(space, lo, 0, native.pfn, native.level, native.attr);
}

const bench = new Bench({ time: 1000 });
let sum = 0;
bench
  .add('native walk, read', () => {
    for (const lo of far) sum += native.walk(root, 4, lo, 0, ACCESS_USER) + native.pfn;
  })
  .add('native walk, write', () => {
    for (const lo of far) sum += native.walk(root, 4, lo, 0, ACCESS_USER | ACCESS_WRITE) + native.pfn;
  })
  .add('nested walk, read', () => {
    for (const lo of far) sum += nested.walk(lo, 0, ACCESS_USER) + nested.pfn;
  })
  .add('TLB hit', () => {
    for (const lo of near) if (tlb.lookup(space, lo, 0, ACCESS_USER, CTL_NX | CTL_WP, 0)) sum += tlb.pfn;
  });
await bench.run();
for (const task of bench.tasks) {
  const result = task.result;
  if (result.state !== 'completed') throw new Error(`${task.name}: ${result.state}`);
  console.log(`${task.name.padEnd(20)} ${((result.latency.p50 * 1e6) / ACCESSES).toFixed(1)} ns`);
}
if (sum < 0) throw new Error('no frame is negative');
