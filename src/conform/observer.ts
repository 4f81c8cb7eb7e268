/**
 * What changed in the MMU since the last op, told as the recorder tells it: shadow pages numbered as they appear, their
 * entries and attributes, the current vCPU's root. Source: recorder/src/kstate.c.
 */
import type { Mmu } from '../mmu/mmu.ts';
import { childOf } from '../mmu/shadow-pages.ts';
import { PAE_ROOT } from '../mmu/vcpu.ts';
import type { Vcpu } from '../vm/vcpu.ts';
import type { Vm } from '../vm/vm.ts';
import { entryForm, hex, roleForm } from './entry-form.ts';
import type { AddedPage, ChangedPage, EntryChange, MmuState, Place, StateChange } from './recording.ts';

const INVALID = 1 << 11;
const ENTRIES = 512;
const PRESENT = 1 << 11;
const PSE = 1 << 7;
/** The recorder leaves out names with `exits` or `ns` in them (recorder/src/main.c stat_wanted). */
const NOT_RECORDED = new Set(['exits', 'max_mmu_page_hash_collisions']);
const NO_PAE_ROOT = '0,0,0,0,0,0,0,0';
const ATTRIBUTES = ['unsync', 'root_count', 'unsync_children', 'gen', 'flood', 'nx_disallowed', 'invalid'] as const;

/** A shadow page as last seen. Its table, gfn and role are its identity. */
interface SeenPage {
  readonly id: number;
  readonly sp: number;
  readonly gfn: number;
  readonly role: number;
  /** Of the TDP MMU: only roots of it have attributes, and only two. */
  readonly tdp: boolean;
  readonly words: Int32Array;
  readonly attributes: number[];
  seen: boolean;
}

export class Observer {
  private readonly mmu: Mmu;
  private readonly vm: Vm;
  /** Frame that the host maps behind a guest frame, 0 for none. */
  private readonly hostPfn: (gfn: number) => number;
  private pages: SeenPage[] = [];
  private nextId = 0;
  private lastMmu = '';
  private lastPae = NO_PAE_ROOT;
  private readonly lastStats = new Map<string, number>();
  /** Number of the page that a table was last seen as. */
  private readonly idOfTable = new Map<number, number>();

  constructor(vm: Vm, hostPfn: (gfn: number) => number) {
    this.vm = vm;
    this.mmu = vm.mmu;
    this.hostPfn = hostPfn;
  }

  /** Place of an entry, by the pages as of the last `state`, those that just vanished included. */
  place(sptep: number): Place | undefined {
    const sp = this.idOfTable.get(sptep >>> 9);
    return sp === undefined ? undefined : { sp, index: sptep & 511 };
  }

  /** Changes since the last call. Afterwards, once events have been placed, call `forget`. */
  state(vcpu: Vcpu): StateChange | undefined {
    const added: AddedPage[] = [];
    const changed: ChangedPage[] = [];
    const entries: EntryChange[] = [];
    for (const page of this.pages) page.seen = false;
    for (let sp = this.mmu.pages.oldest; sp !== 0; sp = this.mmu.pages.newerOf(sp)) {
      const { gfn, role } = this.mmu.pages;
      const page = this.visit(sp, gfn[sp], role[sp], false, added);
      this.compareEntries(page, entries);
      this.compareAttributes(page, changed);
    }
    for (const root of this.mmu.tdpRoots) {
      this.visitTdpTree(root, 0, this.mmu.pages.role[root], added, entries);
      this.compareRootAttributes(root, changed);
    }
    const removed = this.pages.filter((page) => !page.seen).map((page) => page.id);
    this.pages = this.pages.filter((page) => page.seen);
    const mmu = this.mmuState(vcpu);
    const paeRoot = this.paeRoot(vcpu);
    const state = {
      ...(added.length ? { added } : {}),
      ...(removed.length ? { removed } : {}),
      ...(changed.length ? { changed } : {}),
      ...(entries.length ? { entries } : {}),
      ...(mmu ? { mmu } : {}),
      ...(paeRoot ? { pae_root: paeRoot } : {}),
    };
    return Object.keys(state).length ? state : undefined;
  }

  /** Drops the places of pages that are gone. */
  forget(): void {
    const live = new Set(this.pages.map((page) => page.id));
    for (const [table, id] of this.idOfTable) if (!live.has(id)) this.idOfTable.delete(table);
  }

  private visit(sp: number, gfn: number, roleWord: number, tdp: boolean, added: AddedPage[]): SeenPage {
    const role = roleWord & ~INVALID;
    let page = this.pages.find((p) => p.sp === sp && p.gfn === gfn && p.role === role && p.tdp === tdp);
    if (page === undefined) {
      const id = this.nextId++;
      const attributes = ATTRIBUTES.map(() => 0);
      page = { id, sp, gfn, role, tdp, words: new Int32Array(2 * ENTRIES), attributes, seen: true };
      this.pages.push(page);
      this.idOfTable.set(sp, id);
      added.push({ id, gfn: hex(gfn), role: roleForm(role), tdp: tdp ? 1 : 0 });
    }
    page.seen = true;
    return page;
  }

  /** A page of the TDP MMU and all below it, each before its children. Below a root, roles follow from its role. */
  private visitTdpTree(sp: number, gfn: number, role: number, added: AddedPage[], entries: EntryChange[]): void {
    const page = this.visit(sp, gfn, role, true, added);
    this.compareEntries(page, entries);
    const level = role & 15;
    if (level === 1) return;
    for (let i = 0; i < ENTRIES; i++) {
      const lo = page.words[2 * i];
      if ((lo & (PRESENT | PSE)) !== PRESENT) continue;
      const child = childOf(lo, page.words[2 * i + 1]);
      this.visitTdpTree(child, gfn + i * 2 ** (9 * (level - 1)), role - 1, added, entries);
    }
  }

  private compareRootAttributes(sp: number, out: ChangedPage[]): void {
    const { rootCount, role } = this.mmu.pages;
    const page = this.pages.find((p) => p.sp === sp && p.tdp && p.seen)!;
    const [root_count, invalid] = [rootCount[sp], role[sp] & INVALID ? 1 : 0];
    if (page.attributes[0] === root_count && page.attributes[1] === invalid) return;
    page.attributes[0] = root_count;
    page.attributes[1] = invalid;
    out.push({ id: page.id, root_count, invalid });
  }

  private compareEntries(page: SeenPage, out: EntryChange[]): void {
    const now = this.mmu.arena.words;
    const base = page.sp * 2 * ENTRIES;
    for (let i = 0; i < 2 * ENTRIES; i += 2) {
      const [oldLo, oldHi] = [page.words[i], page.words[i + 1]];
      const [lo, hi] = [now[base + i], now[base + i + 1]];
      if (lo === oldLo && hi === oldHi) continue;
      const change = { sp: page.id, index: i / 2, old: entryForm(oldLo, oldHi), new: entryForm(lo, hi) };
      const isLeaf = (lo & 0x800) !== 0 && ((page.role & 15) === 1 || (lo & 0x80) !== 0);
      out.push(isLeaf ? { ...change, host: this.hostVerdict(page.sp, i / 2, lo, hi) } : change);
      page.words[i] = lo;
      page.words[i + 1] = hi;
    }
  }

  private hostVerdict(sp: number, index: number, lo: number, hi: number): 'ok' | 'stale' | 'gone' {
    const host = this.hostPfn(this.mmu.pages.entryGfn(sp, index));
    if (host === 0) return 'gone';
    return host === (lo >>> 12) + (hi & 0xfffff) * 0x100000 ? 'ok' : 'stale';
  }

  private compareAttributes(page: SeenPage, out: ChangedPage[]): void {
    const p = this.mmu.pages;
    const { sp } = page;
    const invalid = p.role[sp] & INVALID ? 1 : 0;
    const now = [
      p.unsync[sp],
      p.rootCount[sp],
      p.unsyncChildren[sp],
      p.validGen[sp],
      p.writeFlooding[sp],
      p.lpageDisallowed[sp],
      invalid,
    ];
    if (now.every((value, i) => value === page.attributes[i])) return;
    now.forEach((value, i) => {
      page.attributes[i] = value;
    });
    const attributes = Object.fromEntries(ATTRIBUTES.map((name, i) => [name, now[i]]));
    out.push({ id: page.id, ...attributes } as unknown as ChangedPage);
  }

  private mmuState(vcpu: Vcpu): MmuState | undefined {
    const { root, cpuRole, rootRole } = vcpu.mmu;
    const { nUsedPages, indirectShadowPages } = this.mmu;
    const place = root.sp === PAE_ROOT ? `pae${vcpu.id}` : root.sp;
    const now = [place, nUsedPages, indirectShadowPages, cpuRole, rootRole].join();
    if (now === this.lastMmu) return undefined;
    this.lastMmu = now;
    return {
      root_sp: this.pages.find((page) => page.sp === root.sp)?.id ?? -1,
      used_pages: nUsedPages,
      indirect: indirectShadowPages,
      cpu_role: hex(cpuRole >>> 0),
      root_role: roleForm(rootRole),
    };
  }

  private paeRoot(vcpu: Vcpu): (number | null)[] | undefined {
    const isPae = (vcpu.mmu.rootRole & 15) === 3 && vcpu.mmu.root.sp !== 0;
    const roots = isPae ? [...vcpu.mmu.paeRoots] : [0, 0, 0, 0];
    // The entries themselves are compared: the CPU of the recordings sets A in them.
    const table = vcpu.mmu.paeRootTable * 2 * ENTRIES;
    const now = isPae ? this.mmu.arena.words.slice(table, table + 8).join() : NO_PAE_ROOT;
    if (now === this.lastPae) return undefined;
    this.lastPae = now;
    return roots.map((sp) => (sp === 0 ? null : (this.idOfTable.get(sp) ?? -1)));
  }

  /** Statistics that changed since the last call, a second vCPU's with a prefix. */
  stats(): Record<string, number> | undefined {
    const changes: Record<string, number> = {};
    const compare = (prefix: string, counters: object): void => {
      for (const [name, value] of Object.entries(counters) as [string, number][]) {
        if (NOT_RECORDED.has(name)) continue;
        const before = this.lastStats.get(prefix + name) ?? 0;
        if (value !== before) changes[prefix + name] = value - before;
        this.lastStats.set(prefix + name, value);
      }
    };
    compare('', this.mmu.stats);
    for (const vcpu of this.vm.vcpus) compare(vcpu.id === 0 ? '' : `vcpu${vcpu.id}.`, vcpu.mmu.stats);
    return Object.keys(changes).length ? changes : undefined;
  }
}
