/**
 * The machine as far as a recording gives it away, for one whose scenario nobody has.
 *
 * It looks at results, so it is no substitute for the scenario where a replay has to prove itself. What never mattered
 * in the recording may be wrong.
 */
import type { Machine } from './machine.ts';
import type { Entry, Recording, SlotInfo, TraceEvent } from './recording.ts';
import { parseOp } from './scenario.ts';

export function guessMachine(recording: Recording): Machine {
  return {
    vcpus: guessVcpus(recording),
    manual: guessManual(recording),
    mmuPages: guessMmuPages(recording),
    unpopulated: guessUnpopulated(recording),
    writes: [],
  };
}

function guessVcpus(recording: Recording): number {
  const ops = recording.results.map(({ op }) => parseOp(op));
  return Math.max(1, ...ops.map((op) => (op.kind === 'vcpu' ? op.vcpu + 1 : 1)));
}

/**
 * Enabling the log write-protects the slot, unless the log starts with all set; taking the log protects the pages that
 * it hands out, unless that is left to KVM_CLEAR_DIRTY_LOG.
 */
function guessManual(recording: Recording): number {
  let manual = 0;
  const logged = new Set(recording.slots.filter((slot) => (slot.flags & 1) !== 0).map((slot) => slot.id));
  for (const { op: text, res, events, bitmap } of recording.results) {
    const op = parseOp(text);
    if (op.kind === 'clearlog') manual = 1;
    else if (op.kind === 'del') logged.delete(op.slot);
    else if (op.kind === 'getlog' && bitmap !== undefined && bitmap.gfns.length > 0) {
      if (events.some((event) => event.name === 'log_masked')) return 0;
      manual = 1;
    } else if (op.kind === 'log' && res?.ret === 0) {
      if (op.on && !logged.has(op.slot) && !events.some((event) => event.name === 'slot_wrprot')) return 3;
      if (op.on) logged.add(op.slot);
      else logged.delete(op.slot);
    }
  }
  return manual;
}

/** KVM zaps `25 - free` pages when fewer than 5 are free, so the first such zap tells the limit. */
function guessMmuPages(recording: Recording): number {
  let used = 0;
  for (const { op, events, state } of recording.results) {
    if (/^mmupages\s/.test(op)) return 0;
    for (const event of events) {
      if (event.name === 'kvm_mmu_get_page' && event['created'] === 1) used++;
      if (event.name === 'kvm_mmu_prepare_zap_page') break;
      if (event.name === 'zap_oldest' && typeof event['n'] === 'number') return used + 25 - event['n'];
    }
    used = state?.mmu?.used_pages ?? used;
  }
  return 0;
}

/**
 * Of an unpopulated slot the recording holds no memory, but not every populated one has any that is not zero. What a
 * first read finds decides; without such a read, it counts whether other slots have words (the random scenarios put
 * code into each populated slot).
 */
function guessUnpopulated(recording: Recording): number[] {
  const slots = recording.slots.filter((slot) => slot.id !== 0);
  const bare = slots.filter((slot) => !holdsWords(recording, slot));
  const othersHoldWords = bare.length < slots.length;
  return bare
    .filter((slot) => slot.backing === '4k' || slot.backing === 'thp')
    .filter((slot) => !(firstReadFindsMemory(recording, slot) ?? !othersHoldWords))
    .map((slot) => slot.id);
}

function holdsWords(recording: Recording, slot: SlotInfo): boolean {
  const start = BigInt(slot.gpa);
  const end = start + BigInt(slot.size);
  return recording.memory.some(([gpa]) => gpa >= start && gpa < end);
}

const CHANGES_MEMORY: ReadonlySet<string> = new Set([
  'fork',
  'hw',
  'dontneed',
  'munmap',
  'populate',
  'mprotect',
  'del',
  'move',
]);

/**
 * Whether the first read of a page (of a 2 MiB block, where the host backs it with one) finds a page that the host maps
 * writable, so one that was written before. undefined: nothing is read before the host interferes, or the slot is
 * read-only, where nothing is mapped writable.
 */
function firstReadFindsMemory(recording: Recording, slot: SlotInfo): boolean | undefined {
  if ((slot.flags & 2) !== 0) return undefined;
  const firstGfn = Number(BigInt(slot.gpa) >> 12n);
  const lastGfn = firstGfn + Number(BigInt(slot.size) >> 12n) - 1;
  const touched = new Set<number>();
  for (const { op, events } of recording.results) {
    if (CHANGES_MEMORY.has(parseOp(op).kind)) return undefined;
    for (const { gfn, write, entry } of mappings(events)) {
      if (gfn < firstGfn || gfn > lastGfn) continue;
      const block = slot.backing === 'thp' ? gfn >> 9 : gfn;
      if (!write && !touched.has(block)) return entry.flags?.includes('h') ?? false;
      touched.add(block);
    }
  }
  return undefined;
}

/** The mappings that faults made for the very page that was asked for. */
function* mappings(events: readonly TraceEvent[]): Generator<{ gfn: number; write: boolean; entry: Entry }> {
  let write = false;
  let gfn = -1;
  for (const event of events) {
    if (event.name === 'kvm_page_fault') write = (BigInt(event['error_code'] as string) & 2n) !== 0n;
    else if (event.name === 'kvm_mmu_spte_requested') gfn = Number(event['gfn']);
    if (event.name !== 'kvm_mmu_set_spte' && event.name !== 'kvm_tdp_mmu_spte_changed') continue;
    const entry = (event['spte'] ?? event['new_spte']) as Entry;
    const level = event['level'] as number;
    const isLeaf = entry.flags !== undefined && (level === 1 || entry.flags.includes('S'));
    const span = 512 ** (level - 1);
    if (!isLeaf || Number(event['gfn']) !== gfn - (gfn % span)) continue;
    yield { gfn, write, entry };
    gfn = -1;
  }
}
