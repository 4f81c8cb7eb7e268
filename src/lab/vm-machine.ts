/**
 * The machine of the experiment: a VM with nested paging, one memory slot from address 0 to the end of memory (holes for
 * devices are not cut out: a recording does not name them), on a host that backs all of it with 2 MiB pages, and vCPUs
 * that touch guest-physical pages.
 */
import { FLAT_HVA, FlatHost } from '../mem/flat-host.ts';
import type { Tracer } from '../trace/tracer.ts';
import { regionDirtyPages, regionStates } from '../vm/inspect.ts';
import { MEM_LOG_DIRTY_PAGES, Vm, type VmConfig } from '../vm/vm.ts';
import type { MachineCounters, ReplayMachine } from './replay.ts';

const SLOT = 0;

/** Which MMU: `mmu/presets.ts` has the kernels'. */
export type MmuChoice = Pick<VmConfig, 'policy' | 'kernel' | 'tdpMmu' | 'ept'>;

/** A fresh machine. Its tracepoints fire into `trace`. */
export function makeVmMachine(
  { policy, kernel, tdpMmu, ept }: MmuChoice,
  memBytes: number,
  vcpus: number,
  trace?: Tracer,
): ReplayMachine {
  const host = new FlatHost({ bytes: memBytes, level: 2, sparse: true });
  const vm = new Vm({ host, npt: true, policy, kernel, tdpMmu, ept, trace });
  const setSlot = (flags: number): void =>
    vm.setUserMemoryRegion({ slot: SLOT, flags, guestPhysAddr: 0, memorySize: memBytes, userspaceAddr: FLAT_HVA });
  setSlot(0);
  const guests = Array.from({ length: vcpus }, () => vm.createVcpu());
  return {
    touch(vcpu, page, kind) {
      const guest = guests[vcpu];
      const { stats } = guest.mmu;
      const before = stats.pf_taken;
      guest.touchPage(page, kind);
      return stats.pf_taken - before;
    },
    log: {
      start: () => setSlot(MEM_LOG_DIRTY_PAGES),
      collect: () => vm.getDirtyLog(SLOT),
    },
    stopLog: () => setSlot(0),
    counters: () => readCounters(vm),
    tableWords: () => vm.mmu.arena.words.slice(),
    verify: () => vm.verify(),
    regions({ states, dirtyPages }) {
      regionStates(vm, states);
      if (dirtyPages !== undefined) regionDirtyPages(vm, SLOT, dirtyPages);
    },
  };
}

function readCounters(vm: Vm): MachineCounters {
  const { stats } = vm;
  const sum = (name: 'pf_taken' | 'pf_fixed' | 'pf_fast' | 'pf_spurious' | 'tlb_flush'): number =>
    vm.vcpus.reduce((total, vcpu) => total + vcpu.mmu.stats[name], 0);
  return {
    pf_taken: sum('pf_taken'),
    pf_fixed: sum('pf_fixed'),
    pf_fast: sum('pf_fast'),
    pf_spurious: sum('pf_spurious'),
    tlb_flush: sum('tlb_flush'),
    remote_tlb_flush: stats.remote_tlb_flush,
    remote_tlb_flush_requests: stats.remote_tlb_flush_requests,
    pages_4k: stats.pages_4k,
    pages_2m: stats.pages_2m,
    // The TDP MMU's count in none of KVM's own numbers.
    tables: vm.mmu.nUsedPages + vm.mmu.nTdpPages + vm.mmu.tdpRoots.length,
  };
}
