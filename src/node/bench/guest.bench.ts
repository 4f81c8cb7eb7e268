/** A guest of one slot on a flat host, as the figures use it. */
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import { Tracer } from '../../trace/tracer.ts';
import type { Vcpu } from '../../vm/vcpu.ts';
import { MEM_LOG_DIRTY_PAGES, Vm } from '../../vm/vm.ts';

export const GIB = 2 ** 30;
export const WRITE = 1;
export const READ = 0;

export class Guest {
  readonly pages: number;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  private readonly bytes: number;

  constructor(bytes: number, hostLevel: 1 | 2, trace = new Tracer()) {
    this.bytes = bytes;
    this.pages = bytes / 4096;
    this.vm = new Vm({ host: new FlatHost({ bytes, level: hostLevel, sparse: true }), npt: true, trace });
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

  stopLog(): void {
    this.setFlags(0);
  }
}
