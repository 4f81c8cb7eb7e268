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
 */
import { PFERR_GUEST_FINAL_HI, PFERR_GUEST_PAGE_HI } from '../arch/pferr.ts';
import type { PhysMemory } from '../mem/phys-memory.ts';
import type { CpuModel } from './cpu-model.ts';
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
import { gpaHi, TwoDimensionalWalker } from './two-dimensional.ts';

export class NestedWalker extends TwoDimensionalWalker {
  /** Walks the nested tables. Its `sptep` and `level` tell, after any walk, which nested entry it looked at last. */
  readonly npt: NativeWalker;

  /** `npt`: with the host's CTL_NX; WP, SMEP, SMAP and keys don't matter to it, as every nested access is a user's. */
  constructor(memory: PhysMemory, model: CpuModel, npt: NativeWalker) {
    super(memory, model);
    this.npt = npt;
  }

  protected override walkToTable(lo: number, hi: number): number {
    const result = this.npt.walk(this.nptRoot, this.nptLevel, lo, hi, ACCESS_USER | ACCESS_WRITE);
    return result === WALK_OK ? this.npt.pfn : this.exit(lo, hi, result, PFERR_GUEST_PAGE_HI);
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
}
