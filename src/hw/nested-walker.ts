/**
 * The two-dimensional walk (AMD nested paging): guest tables in guest memory, each of their frames found through the
 * nested tables that the MMU wrote.
 *
 *     gva --> guest level 4 --> 3 --> 2 --> 1 --> gpa
 *               | gpa           |     |     |      |
 *             NPT walk         NPT   NPT   NPT    NPT
 *               | as a user *write*, error code    | as the access itself, always user,
 *               v bit 33 (GUEST_PAGE)              v error code bit 32 (GUEST_FINAL)
 *
 * Table frames are walked as writes whether or not A or D gets set: the CPU may always have to. So D is set in nested
 * entries of pages that hold guest tables, and a write-protected one faults (0x200000007) even for a guest's read.
 *
 * As real CPUs do, a walker with `flushedWith` keeps where it found tables until the TLB is flushed, in whatever way, or the
 * root changes. A walk and its fill take 175 ns without and 100 with it (npm run bench -- two-dimensional).
 */
import { PFERR_GUEST_FINAL_HI, PFERR_GUEST_PAGE_HI } from '../arch/pferr.ts';
import type { PhysMemory } from '../mem/phys-memory.ts';
import type { CpuModel } from './cpu-model.ts';
import { GuestWalker } from './guest-walker.ts';
import type { NativeWalker } from './native-walker.ts';
import {
  ACCESS_FETCH,
  ACCESS_USER,
  ACCESS_WRITE,
  ATTR_D,
  ATTR_HOST_D,
  ATTR_HOST_NX,
  ATTR_HOST_W,
  ATTR_NX,
  ATTR_W,
  WALK_OK,
} from './rights.ts';

const TABLES = 64;
const MAX_INT = 2 ** 31 - 1;

export class NestedWalker extends GuestWalker {
  /** Root of the nested tables: table number and level (4 or 5). */
  nptRoot = 0;
  nptLevel = 4;
  /** Walks the nested tables. Its `sptep` and `level` tell, after any walk, which nested entry it looked at last. */
  readonly npt: NativeWalker;
  /** The TLB whose flushes the found tables go with; null: every one is looked up anew. */
  flushedWith: { readonly flushes: number } | null = null;
  /** Found tables, by the low bits of their guest frame: that frame (-1: none), and the host's. */
  private readonly tableGfns = new Float64Array(TABLES).fill(-1);
  private readonly tablePfns = new Int32Array(TABLES);
  private flushesSeen = 0;
  private rootSeen = 0;

  /** `npt`: with the host's CTL_NX; WP, SMEP, SMAP and keys don't matter to it, as every nested access is a user's. */
  constructor(memory: PhysMemory, model: CpuModel, npt: NativeWalker) {
    super(memory, model);
    this.npt = npt;
  }

  protected override tableFrame(gfn: number, offset: number): number {
    const at = gfn & (TABLES - 1);
    if (this.flushedWith !== null) {
      if (this.flushedWith.flushes !== this.flushesSeen || this.nptRoot !== this.rootSeen) this.forgetTables();
      else if (this.tableGfns[at] === gfn) return this.tablePfns[at];
    }
    const lo = (gfn << 12) | offset;
    const hi = gpaHi(gfn);
    const result = this.npt.walk(this.nptRoot, this.nptLevel, lo, hi, ACCESS_USER | ACCESS_WRITE);
    if (result !== WALK_OK) return this.exit(lo, hi, result, PFERR_GUEST_PAGE_HI);
    const { pfn } = this.npt;
    if (this.flushedWith !== null && pfn <= MAX_INT) {
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

  protected override finalFrame(gfn: number, offset: number, access: number): number {
    const lo = (gfn << 12) | offset;
    const hi = gpaHi(gfn);
    const npt = this.npt;
    const result = npt.walk(
      this.nptRoot,
      this.nptLevel,
      lo,
      hi,
      ACCESS_USER | (access & (ACCESS_WRITE | ACCESS_FETCH)),
    );
    if (result !== WALK_OK) return this.exit(lo, hi, result, PFERR_GUEST_FINAL_HI);
    const attr = npt.attr;
    this.hostAttr =
      (attr & ATTR_W ? ATTR_HOST_W : 0) | (attr & ATTR_NX ? ATTR_HOST_NX : 0) | (attr & ATTR_D ? ATTR_HOST_D : 0);
    this.hostLevel = npt.level;
    return npt.pfn;
  }

  private exit(gpaLo: number, gpaHi: number, errorLo: number, errorHi: number): number {
    this.nestedGpaLo = gpaLo;
    this.nestedGpaHi = gpaHi;
    this.nestedErrorLo = errorLo;
    this.nestedErrorHi = errorHi;
    return -1;
  }
}

/** High word of a frame's address; a division only where it must be. */
function gpaHi(gfn: number): number {
  return gfn < 0x40000000 ? gfn >>> 20 : (gfn / 0x100000) | 0;
}
