/**
 * What Intel's manual says a guest-physical address translates to through extended page tables, alone and below a guest's own
 * tables: one entry after the other, on BigInt. Written from SDM volume 3, chapter 29 (28 in older editions) and table 28-7;
 * slow on purpose, and without anything of what it judges.
 *
 * Where the manual leaves it open: entries above the one that stops a walk get A, that one itself gets none.
 */
import { translate, type TranslateInput, type TranslateResult } from './translate.ts';

const bit = (entry: bigint, n: number): boolean => ((entry >> BigInt(n)) & 1n) === 1n;
const field = (entry: bigint, high: number, low: number): bigint =>
  high < low ? 0n : (entry >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

export interface EptPml {
  /** 16 bits: the next free entry, from 511 down. */
  index: number;
  /** Addresses logged, by entry. */
  readonly log: Map<number, bigint>;
}

export interface EptInput {
  rootPa: bigint;
  levels: 4 | 5;
  /** EPTP bit 6. */
  ad: boolean;
  executeOnly: boolean;
  gbPages: boolean;
  maxphyaddr: number;
  /** Page-modification logging, if it is on. */
  pml?: EptPml;
  read(pa: bigint): bigint;
  write(pa: bigint, value: bigint): void;
}

export interface EptAccess {
  read: boolean;
  write: boolean;
  fetch: boolean;
}

export type EptResult =
  | { kind: 'ok'; pa: bigint; level: number; r: boolean; w: boolean; x: boolean; dirty: boolean }
  /** Bits 5:0 of the exit qualification. */
  | { kind: 'violation'; qualification: number }
  | { kind: 'misconfiguration' }
  | { kind: 'log full' };

/** SDM 29.3.3.1: is a present entry one that no software may use? */
function isMisconfigured(input: EptInput, entry: bigint, level: number): boolean {
  const [r, w, x] = [bit(entry, 0), bit(entry, 1), bit(entry, 2)];
  if (w && !r) return true;
  if (x && !r && !input.executeOnly) return true;
  if (field(entry, 51, input.maxphyaddr) !== 0n) return true;
  const maps = level === 1 || (level <= 3 && bit(entry, 7));
  if (!maps) return field(entry, level > 3 ? 7 : 6, 3) !== 0n;
  if ([2n, 3n, 7n].includes(field(entry, 5, 3))) return true;
  if (level === 2) return field(entry, 20, 12) !== 0n;
  if (level === 3) return !input.gbPages || field(entry, 29, 12) !== 0n;
  return false;
}

export function translateEpt(input: EptInput, gpa: bigint, access: EptAccess): EptResult {
  const asked = (access.read ? 1 : 0) | (access.write ? 2 : 0) | (access.fetch ? 4 : 0);
  let table = input.rootPa;
  let all = 7n;
  for (let level: number = input.levels; ; level--) {
    const shift = 12 + 9 * (level - 1);
    const at = table + 8n * field(gpa, shift + 8, shift);
    const entry = input.read(at);
    if (field(entry, 2, 0) === 0n) return { kind: 'violation', qualification: asked };
    if (isMisconfigured(input, entry, level)) return { kind: 'misconfiguration' };
    all &= entry;
    const maps = level === 1 || (level <= 3 && bit(entry, 7));
    if (!maps) {
      if (input.ad) input.write(at, entry | (1n << 8n));
      table = field(entry, input.maxphyaddr - 1, 12) << 12n;
      continue;
    }
    const [r, w, x] = [bit(all, 0), bit(all, 1), bit(all, 2)];
    if ((access.read && !r) || (access.write && !w) || (access.fetch && !x))
      return { kind: 'violation', qualification: asked | (Number(all) << 3) };
    let dirty = !input.ad || bit(entry, 9);
    if (input.ad) {
      const { pml } = input;
      if (access.write && !dirty && pml !== undefined) {
        if (pml.index > 511) return { kind: 'log full' };
        pml.log.set(pml.index, (gpa >> 12n) << 12n);
        pml.index = (pml.index + 0xffff) % 0x10000;
      }
      dirty ||= access.write;
      input.write(at, entry | (1n << 8n) | (access.write ? 1n << 9n : 0n));
    }
    const base = field(entry, input.maxphyaddr - 1, shift) << BigInt(shift);
    return { kind: 'ok', pa: base + field(gpa, shift - 1, 0), level, r, w, x, dirty };
  }
}

export type EptNestedResult =
  | { kind: 'ok'; pa: bigint; guest: Extract<TranslateResult, { ok: true }>; ept: Extract<EptResult, { kind: 'ok' }> }
  /** #PF into the guest. */
  | { kind: 'guest-fault'; error: number }
  /** The whole qualification of a violation. */
  | { kind: 'violation'; gpa: bigint; qualification: number }
  | { kind: 'misconfiguration' | 'log full'; gpa: bigint };

class Exit extends Error {
  readonly result: EptNestedResult;
  constructor(result: EptNestedResult) {
    super('exit');
    this.result = result;
  }
}

/**
 * A guest's access through its own tables and EPT. With A and D in EPT each access to a guest's table is a read and a write;
 * without, it is a read, and one more that writes where the guest's A or D is set (SDM 29.3.3.2; kvm-unit-tests'
 * ept_access_test_paddr_read_only_ad_disabled).
 */
export function translateNestedEpt(
  guest: Omit<TranslateInput, 'read' | 'write'>,
  ept: EptInput,
  memory: Pick<TranslateInput, 'read' | 'write'>,
): EptNestedResult {
  const reach = (gpa: bigint, access: EptAccess, final: boolean): Extract<EptResult, { kind: 'ok' }> => {
    const result = translateEpt(ept, gpa, access);
    if (result.kind === 'ok') return result;
    if (result.kind !== 'violation') throw new Exit({ kind: result.kind, gpa });
    throw new Exit({ kind: 'violation', gpa, qualification: result.qualification | 0x80 | (final ? 0x100 : 0) });
  };
  const both = { read: true, write: true, fetch: false };
  try {
    const first = translate({
      ...guest,
      read: (gpa, bytes) => memory.read(reach(gpa, { ...both, write: ept.ad }, false).pa, bytes),
      write: (gpa, bytes, value) => memory.write(reach(gpa, both, false).pa, bytes, value),
    });
    if (!first.ok) return { kind: 'guest-fault', error: first.error };
    const { access } = guest;
    const last = reach(first.pa, { read: access === 'r', write: access === 'w', fetch: access === 'x' }, true);
    return { kind: 'ok', pa: last.pa, guest: first, ept: last };
  } catch (exit) {
    if (exit instanceof Exit) return exit.result;
    throw exit;
  }
}
