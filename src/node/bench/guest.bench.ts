/** A guest of one slot on a flat host, as the figures use it, and the engines that it may run on. */
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import { Tracer } from '../../trace/tracer.ts';
import type { Vcpu } from '../../vm/vcpu.ts';
import { CAP_DIRTY_LOG_RING, MEM_LOG_DIRTY_PAGES, Vm, type VmConfig } from '../../vm/vm.ts';

export const GIB = 2 ** 30;
export const WRITE = 1;
export const READ = 0;

/** An engine, and how it learns what is dirty. */
export interface Engine {
  /** What its figures' names begin with; '' for the one that the targets were set for. */
  readonly prefix: string;
  readonly config: Pick<VmConfig, 'npt' | 'tdpMmu' | 'ept'>;
  /** A dirty ring of so many bytes takes the bitmaps' place. */
  readonly ringBytes?: number;
}

/** The rmap-based engine. */
export const DIRECT: Engine = { prefix: '', config: { npt: true } };
export const TDP_MMU: Engine = { prefix: 'TDP MMU: ', config: { npt: true, tdpMmu: true } };
export const TDP_EPT_PML: Engine = {
  prefix: 'TDP MMU, EPT, PML: ',
  config: { npt: true, tdpMmu: true, ept: { ad: true, executeOnly: true, pml: true } },
};
/** The largest ring there is: 65,536 pages. */
export const TDP_RING: Engine = { prefix: 'TDP MMU, ring: ', config: { npt: true, tdpMmu: true }, ringBytes: 2 ** 20 };

export class Guest {
  readonly pages: number;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  private readonly bytes: number;

  constructor(bytes: number, hostLevel: 1 | 2, { config, ringBytes }: Engine = DIRECT, trace = new Tracer()) {
    this.bytes = bytes;
    this.pages = bytes / 4096;
    this.vm = new Vm({ host: new FlatHost({ bytes, level: hostLevel, sparse: true }), trace, ...config });
    if (ringBytes !== undefined) this.vm.enableCap(CAP_DIRTY_LOG_RING, ringBytes);
    this.setFlags(0);
    this.vcpu = this.vm.createVcpu();
  }

  private setFlags(flags: number): void {
    const { bytes } = this;
    this.vm.setUserMemoryRegion({ slot: 0, flags, guestPhysAddr: 0, memorySize: bytes, userspaceAddr: FLAT_HVA });
  }

  /** Touches every `step`-th page. */
  touchEach(step: number, kind: number): void {
    const { vcpu, pages } = this;
    for (let page = 0; page < pages; page += step) vcpu.touchPage(page, kind);
  }

  startLog(): void {
    this.setFlags(MEM_LOG_DIRTY_PAGES);
  }

  /** Takes what is dirty, and has it noticed again: the log with its clear, or the ring's harvest with its reset. */
  collect(): void {
    const ring = this.vcpu.dirtyRing;
    if (ring === null) return void this.vm.getDirtyLog(0);
    ring.harvest(ignoreEntry);
    this.vm.resetDirtyRings();
  }

  stopLog(): void {
    this.setFlags(0);
  }
}

function ignoreEntry(): void {
  // User space would set a bit of its own.
}
