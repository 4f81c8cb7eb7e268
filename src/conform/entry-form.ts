/** Entries, roles and trace records in the recorder's form. Source: recorder/convert.mjs. */
import { hex64, toNumber } from '../base/u64.ts';
import { REGION_STRIDE, REGIONS_BASE } from '../mem/host/vmm-memory.ts';
import { RET_PF_NAMES } from '../mmu/page-fault.ts';
import { fieldWords, TRACEPOINT_BY_ID } from '../trace/tracepoints.ts';
import type { Tracer } from '../trace/tracer.ts';
import type { Entry, Place, RoleInfo, TraceEvent } from './recording.ts';

const FLAGS: readonly (readonly [bit: number, letter: string])[] = [
  [0, 'P'],
  [1, 'W'],
  [2, 'U'],
  [5, 'A'],
  [6, 'D'],
  [7, 'S'],
  [8, 'G'],
  [9, 'h'],
  [10, 'm'],
];
const MMU_PRESENT = 1 << 11;
const ACCESS = ['---', '--x', '-w-', '-wx', 'u--', 'u-x', 'uw-', 'uwx'];

/** An entry without its frame number; one that is no mapping whole. */
export function entryForm(lo: number, hi: number): Entry {
  if (lo === 0 && hi === 0) return { bits: '0x0' };
  if ((lo & MMU_PRESENT) === 0) {
    const bits = hex64(lo, hi);
    return (hi >>> 19) & 1 ? { bits, mapping: 0, mmio: 1 } : { bits, mapping: 0 };
  }
  const letters = FLAGS.filter(([bit]) => (lo >>> bit) & 1).map(([, letter]) => letter);
  return { bits: hex64(lo & 0xfff, hi & ~0xfffff), flags: letters.join('') + (hi < 0 ? 'N' : '') };
}

const ROLE_FLAGS: readonly (readonly [name: keyof RoleInfo, bit: number])[] = [
  ['efer_nx', 12],
  ['cr0_wp', 13],
  ['smep_andnot_wp', 14],
  ['smap_andnot_wp', 15],
  ['ad_disabled', 16],
  ['guest_mode', 17],
  ['passthrough', 18],
];

export function roleForm(word: number): RoleInfo {
  const bit = (n: number): number => (word >>> n) & 1;
  const quadrant = (word >>> 5) & 3;
  const role: Record<string, string | number> = {
    word: `0x${((word & ~(1 << 11)) >>> 0).toString(16)}`,
    level: word & 15,
    direct: bit(7),
    access: ACCESS[(word >>> 8) & 7],
  };
  if (bit(4)) Object.assign(role, { gpte4: 1, quadrant });
  else if (quadrant) role['quadrant'] = quadrant;
  if (bit(11)) role['invalid'] = 1;
  for (const [name, n] of ROLE_FLAGS) if (bit(n)) role[name] = 1;
  return role as unknown as RoleInfo;
}

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** A host address by its slot's region. */
function hvaForm(hva: number): string {
  const slot = Math.floor((hva - REGIONS_BASE) / REGION_STRIDE);
  return `slot${slot}+${hex((hva - REGIONS_BASE) % REGION_STRIDE)}`;
}

/** Fifteen bytes of code in four words, as hexadecimal digits. */
function insnForm(words: Int32Array, at: number): string {
  let text = '';
  for (let i = 0; i < 15; i++) {
    const byte = (words[at + (i >>> 2)] >>> ((i & 3) * 8)) & 0xff;
    text += byte.toString(16).padStart(2, '0');
  }
  return text;
}

/** The records of a trace ring as the recorder's events. `place` finds the page of an entry, or undefined. */
export function eventForms(trace: Tracer, place: (sptep: number) => Place | undefined): TraceEvent[] {
  const events: TraceEvent[] = [];
  for (let n = trace.first; n < trace.count; n++) {
    const at = trace.offsetOf(n);
    const tracepoint = TRACEPOINT_BY_ID.get(trace.words[at])!;
    const event: Record<string, unknown> = { name: tracepoint.name };
    let word = at + 1;
    for (const [name, kind] of tracepoint.fields) {
      const lo = trace.words[word];
      const hi = trace.words[word + 1];
      word += fieldWords(kind);
      if (kind === 'i32') event[name] = lo;
      else if (kind === 'h32' || kind === 'gfn') event[name] = hex(lo >>> 0);
      else if (kind === 'h64') event[name] = hex64(lo, hi);
      else if (kind === 'spte') event[name] = entryForm(lo, hi);
      else if (kind === 'role') event[name] = roleForm(lo);
      else if (kind === 'ret') event[name] = RET_PF_NAMES[lo];
      else if (kind === 'insn') event[name] = insnForm(trace.words, word - 4);
      else if (kind === 'hva') event[name] = hvaForm(toNumber(lo, hi));
      else event['at'] = place(lo);
    }
    events.push(event as unknown as TraceEvent);
  }
  return events;
}
