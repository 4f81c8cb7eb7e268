/**
 * The two-dimensional walk of Intel CPUs: guest tables in guest memory, each of their frames found through extended page
 * tables. What can't be translated is an exit, whose reason tells which of three kinds it is.
 *
 *     access to             with A and D in EPT       without
 *     a guest table         read and write            read; read and write where A or D is set in it
 *     where it ends         what it is                what it is
 *
 * Source: Intel SDM vol. 3, 29.3.3.2, 29.3.5, and table 28-7.
 */
import {
  EPTQ_FETCH,
  EPTQ_GVA_TRANSLATED,
  EPTQ_GVA_VALID,
  EPTQ_READ,
  EPTQ_WRITE,
  VMX_EXIT_EPT_MISCONFIG,
  VMX_EXIT_EPT_VIOLATION,
  VMX_EXIT_PML_FULL,
} from '../arch/ept.ts';
import type { PhysMemory } from '../mem/phys-memory.ts';
import type { CpuModel } from './cpu-model.ts';
import { EPT_MISCONFIG, EPT_PML_FULL, type EptWalker } from './ept-walker.ts';
import {
  ACCESS_FETCH,
  ACCESS_WRITE,
  ATTR_D,
  ATTR_HOST_D,
  ATTR_HOST_NR,
  ATTR_HOST_NX,
  ATTR_HOST_W,
  ATTR_NX,
  ATTR_U,
  ATTR_W,
  WALK_OK,
} from './rights.ts';
import { gpaHi, TwoDimensionalWalker } from './two-dimensional.ts';

const READ_WRITE = EPTQ_READ | EPTQ_WRITE;

/** The access that an EPT violation would report. */
export function eptAccess(access: number): number {
  return access & ACCESS_WRITE ? EPTQ_WRITE : access & ACCESS_FETCH ? EPTQ_FETCH : EPTQ_READ;
}

export class EptNestedWalker extends TwoDimensionalWalker {
  readonly ept: EptWalker;
  /** After WALK_NESTED: VMX_EXIT_EPT_VIOLATION (nestedErrorLo is the qualification), _EPT_MISCONFIG or _PML_FULL. */
  exitReason = 0;
  /** Address of the guest entry that the walk stands at. */
  private entryLo = 0;
  private entryHi = 0;
  private readonly tableAccess: number;

  constructor(memory: PhysMemory, model: CpuModel, ept: EptWalker) {
    super(memory, model);
    this.ept = ept;
    this.tableAccess = !ept.ad ? EPTQ_READ : model.tableReadReported ? READ_WRITE : EPTQ_WRITE;
  }

  protected override tableFrame(gfn: number, offset: number): number {
    this.entryLo = (gfn << 12) | offset;
    this.entryHi = gpaHi(gfn);
    return super.tableFrame(gfn, offset);
  }

  protected override walkToTable(lo: number, hi: number): number {
    return this.toTable(lo, hi, this.tableAccess);
  }

  protected override mayUpdate(): boolean {
    return this.ept.ad || this.toTable(this.entryLo, this.entryHi, READ_WRITE) >= 0;
  }

  private toTable(lo: number, hi: number, access: number): number {
    const result = this.ept.walk(this.nptRoot, this.nptLevel, lo, hi, access);
    return result === WALK_OK ? this.ept.pfn : this.leave(lo, hi, result, EPTQ_GVA_VALID);
  }

  protected override finalFrame(gfn: number, offset: number, access: number): number {
    const pfn = this.translate((gfn << 12) | offset, gpaHi(gfn), access);
    if (pfn < 0) return pfn;
    const { attr, level } = this.ept;
    this.hostAttr =
      (attr & ATTR_W ? ATTR_HOST_W : 0) |
      (attr & ATTR_NX ? ATTR_HOST_NX : 0) |
      (attr & ATTR_U ? 0 : ATTR_HOST_NR) |
      (attr & ATTR_D ? ATTR_HOST_D : 0);
    this.hostLevel = level;
    return pfn;
  }

  /** Where an access ends, by its guest-physical address: the host's frame, or negative. `ept` has the rights. */
  translate(lo: number, hi: number, access: number): number {
    const result = this.ept.walk(this.nptRoot, this.nptLevel, lo, hi, eptAccess(access));
    return result === WALK_OK ? this.ept.pfn : this.leave(lo, hi, result, EPTQ_GVA_VALID | EPTQ_GVA_TRANSLATED);
  }

  private leave(lo: number, hi: number, result: number, where: number): number {
    if (result === EPT_MISCONFIG) this.exitReason = VMX_EXIT_EPT_MISCONFIG;
    else if (result === EPT_PML_FULL) this.exitReason = VMX_EXIT_PML_FULL;
    else {
      this.exitReason = VMX_EXIT_EPT_VIOLATION;
      return this.exit(lo, hi, result | where, 0);
    }
    return this.exit(lo, hi, 0, 0);
  }
}
