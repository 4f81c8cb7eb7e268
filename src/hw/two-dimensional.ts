/**
 * What the two-dimensional walks of both vendors have in common: the guest's tables are walked as GuestWalker does, and each
 * guest frame goes through second tables that the MMU wrote.
 *
 *     gva --> guest level 4 --> 3 --> 2 --> 1 --> gpa
 *               | gpa           |     |     |      |
 *            second walk       ..    ..    ..     ..
 *
 * As real CPUs do, a walker with `flushedWith` keeps where it found tables until the TLB is flushed, in whatever way, or the
 * root changes. A walk and its fill take 175 ns without and 100 with it (npm run bench -- two-dimensional).
 */
import { GuestWalker } from './guest-walker.ts';

const TABLES = 64;
const MAX_INT = 2 ** 31 - 1;

export abstract class TwoDimensionalWalker extends GuestWalker {
  /** Root of the second tables: table number and level (4 or 5). */
  nptRoot = 0;
  nptLevel = 4;
  /** The TLB whose flushes the found tables go with; null: every one is looked up anew. */
  flushedWith: { readonly flushes: number } | null = null;
  /** Found tables, by the low bits of their guest frame: that frame (-1: none), and the host's. */
  private readonly tableGfns = new Float64Array(TABLES).fill(-1);
  private readonly tablePfns = new Int32Array(TABLES);
  private flushesSeen = 0;
  private rootSeen = 0;

  /** The host frame of a guest table, by the table's address; negative: an exit, its fields filled in. */
  protected abstract walkToTable(gpaLo: number, gpaHi: number): number;

  protected override tableFrame(gfn: number, offset: number): number {
    const at = gfn & (TABLES - 1);
    if (this.flushedWith !== null) {
      if (this.flushedWith.flushes !== this.flushesSeen || this.nptRoot !== this.rootSeen) this.forgetTables();
      else if (this.tableGfns[at] === gfn) return this.tablePfns[at];
    }
    const pfn = this.walkToTable((gfn << 12) | offset, gpaHi(gfn));
    if (pfn >= 0 && this.flushedWith !== null && pfn <= MAX_INT) {
      this.tableGfns[at] = gfn;
      this.tablePfns[at] = pfn;
    }
    return pfn;
  }

  private forgetTables(): void {
    this.flushesSeen = this.flushedWith!.flushes;
    this.rootSeen = this.nptRoot;
    this.tableGfns.fill(-1);
  }

  protected exit(gpaLo: number, gpaHi: number, errorLo: number, errorHi: number): number {
    this.nestedGpaLo = gpaLo;
    this.nestedGpaHi = gpaHi;
    this.nestedErrorLo = errorLo;
    this.nestedErrorHi = errorHi;
    return -1;
  }
}

/** High word of a frame's address; a division only where it must be. */
export function gpaHi(gfn: number): number {
  return gfn < 0x40000000 ? gfn >>> 20 : (gfn / 0x100000) | 0;
}
