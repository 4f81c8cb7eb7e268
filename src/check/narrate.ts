/** A schedule in readable lines: who goes on, in the middle of what, up to where, and what has changed. */
import { LOCK_MMU, LOCK_NOTIFIER, LOCK_SHARED, LOCK_SLOTS, LOCK_SRCU } from '../mmu/lock.ts';
import {
  RACE_BEFORE_FLUSH,
  RACE_ENTRY,
  RACE_FAST_FAULT_CMPXCHG,
  RACE_FAST_FAULT_MARK,
  RACE_LOG_WORD,
  RACE_SPTE,
  RACE_SYNC_ROUND,
  RACE_TDP_CMPXCHG,
  RACE_TDP_FROZEN,
  RACE_TDP_SPIN,
  RACE_TDP_YIELD,
  RACE_ZAP_BATCH,
} from '../mmu/race.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS, REQ_TLB_FLUSH, REQ_TLB_FLUSH_CURRENT } from '../mmu/requests.ts';
import { childOf } from '../mmu/shadow-pages.ts';
import { isDirty, isLast, isMmuWritable, isRemoved, isShadowPresent, isWritable, pfnOf } from '../mmu/spte.ts';
import type { Mmu } from '../mmu/mmu.ts';
import { ATTR_D, ATTR_W } from '../hw/rights.ts';
import type { Configuration, Explorer, Step } from './explore.ts';
import {
  EVENT_CHOOSE,
  EVENT_LOCK,
  EVENT_NOTIFIERS,
  EVENT_RACE,
  EVENT_READERS,
  EVENT_UNLOCK,
  type Thread,
} from './threads.ts';
import { PAGES, type World } from './world.ts';

const LOCKS: Readonly<Record<number, string>> = {
  [LOCK_SLOTS]: 'slots_lock',
  [LOCK_MMU]: 'mmu_lock for writing',
  [LOCK_SHARED]: 'mmu_lock for reading',
  [LOCK_SRCU]: 'srcu',
  [LOCK_NOTIFIER]: 'the notifier count',
};
const POINTS: Readonly<Record<number, string>> = {
  [RACE_FAST_FAULT_CMPXCHG]: "before the fast fault's compare-and-exchange",
  [RACE_FAST_FAULT_MARK]: 'W is back, before the page is marked dirty',
  [RACE_ZAP_BATCH]: 'gives way between two batches of a zap',
  [RACE_SYNC_ROUND]: 'gives way between two rounds of syncing',
  [RACE_BEFORE_FLUSH]: 'before the flush',
  [RACE_TDP_CMPXCHG]: 'before a compare-and-exchange of an entry',
  [RACE_TDP_FROZEN]: 'an entry is frozen, before the flush',
  [RACE_TDP_YIELD]: 'a walk gives way',
  [RACE_TDP_SPIN]: 'waits for a frozen entry',
  [RACE_SPTE]: 'before a change of an entry',
  [RACE_ENTRY]: 'before it enters the guest',
  [RACE_LOG_WORD]: 'before a word of the log is taken',
};

/** Where a thread stands. */
function placeOf(thread: Thread): string {
  if (thread.event === null) return 'done';
  const [kind, argument] = thread.event;
  switch (kind) {
    case EVENT_RACE:
      return POINTS[argument] ?? `point ${argument}`;
    case EVENT_LOCK:
      return `wants ${LOCKS[argument]}`;
    case EVENT_UNLOCK:
      return `has released ${LOCKS[argument]}`;
    case EVENT_READERS:
      return 'waits for readers of the slots';
    case EVENT_NOTIFIERS:
      return 'waits for invalidations';
    case EVENT_CHOOSE:
      return 'in the guest: the TLB has something';
    default:
      return POINTS[argument] === undefined ? `may give way at ${argument}` : `may give way: ${POINTS[argument]}`;
  }
}

/** The lines of a schedule; the explorer is put to its start. */
export function narrate(explorer: Explorer, configuration: Configuration, schedule: readonly Step[]): string[] {
  explorer.reset();
  const lines: string[] = [`before: ${configuration.start.before.join(', ')}`];
  const width = Math.max(...configuration.threads.map(({ name }) => name.length));
  let before = describe(explorer.world);
  for (const [at, step] of schedule.entries()) {
    const thread = explorer.threads.all[step.thread];
    const begins = thread.event === null;
    const chooses = thread.event?.[0] === EVENT_CHOOSE;
    const ways = explorer.threads.ways(thread);
    const operation = thread.operation ?? thread.plan.program[thread.at][step.way];
    let end = '';
    try {
      explorer.step(step);
      end = placeOf(thread);
    } catch (error) {
      end = (error as Error).message;
    }
    const what = begins ? 'begins; ' : chooses ? (step.way === ways - 1 ? 'walks; ' : 'uses it; ') : '';
    lines.push(
      `${String(at + 1).padStart(3)}  ${thread.plan.name.padEnd(width)}  ${operation.padEnd(10)}  ${what}${end}`,
    );
    const after = describe(explorer.world);
    for (const [name, value] of after)
      if (before.get(name) !== value) lines.push(`${' '.repeat(width + 7)}${name}: ${before.get(name)} -> ${value}`);
    before = after;
  }
  return lines;
}

/** What a reader wants to see change. */
function describe(world: World): Map<string, string> {
  const { mmu } = world.vm;
  const seen = new Map<string, string>();
  const slot = mmu.slots[0].find(0);
  for (const vcpu of world.vm.vcpus) {
    const { root, requests } = vcpu.mmu;
    for (const page of [0, 1]) seen.set(`page ${page} for vcpu${vcpu.id}`, leafOf(mmu, root.sp, page));
    const due: string[] = [];
    if (requests & (REQ_TLB_FLUSH | REQ_TLB_FLUSH_CURRENT)) due.push('flush');
    if (requests & REQ_MMU_FREE_OBSOLETE_ROOTS) due.push('drop roots');
    seen.set(`requests of vcpu${vcpu.id}`, due.join(', ') || 'none');
    const tlb = world.tlbs[vcpu.id].entries.map(
      ({ page, level, attr, pfn }) =>
        `page ${page}${level === 2 ? ' (2M)' : ''} ${attr & ATTR_W ? 'W' : '-'}${attr & ATTR_D ? 'D' : '-'} to ${pfn}`,
    );
    seen.set(`TLB of vcpu${vcpu.id}`, tlb.join(', ') || 'empty');
  }
  const pages = [...Array(PAGES).keys()];
  const log = slot?.dirtyBitmap ?? null;
  seen.set(
    'log',
    log === null ? 'off' : `{${pages.filter((page) => (log[page >>> 5] >>> (page & 31)) & 1).join(' ')}}`,
  );
  seen.set('written, not copied', `{${pages.filter((page) => world.behind[page] !== 0).join(' ')}}`);
  seen.set('host frames', `epoch ${world.host.epoch}`);
  return seen;
}

const LEVELS = ['', '4K', '2M', '1G', '512G'];

function leafOf(mmu: Mmu, root: number, page: number): string {
  const { words } = mmu.arena;
  let table = root;
  if (table <= 0) return 'no root';
  for (let level = 4; level > 0; level--) {
    const at = ((table << 9) | ((page >>> (9 * (level - 1))) & 511)) << 1;
    const lo = words[at];
    const hi = words[at + 1];
    if (isRemoved(lo, hi)) return `frozen (${LEVELS[level]})`;
    if (!isShadowPresent(lo)) return `nothing (${LEVELS[level]})`;
    if (isLast(lo, level)) {
      const rights = `${isWritable(lo) ? 'W' : '-'}${isMmuWritable(mmu.format, lo, hi) ? 'M' : '-'}${isDirty(mmu.format, lo, hi) ? 'D' : '-'}`;
      return `${LEVELS[level]} ${rights} ${pfnOf(lo, hi)}`;
    }
    table = childOf(lo, hi);
  }
  return 'nothing';
}
