import { describe, expect, it } from 'vitest';
import { FLAT_HVA, FlatHost } from '../mem/flat-host.ts';
import {
  REGION_LARGE_READ_ONLY,
  REGION_LARGE_WRITABLE,
  REGION_SPLIT,
  REGION_UNMAPPED,
  regionDirtyPages,
  regionStates,
} from './inspect.ts';
import { MEM_LOG_DIRTY_PAGES, POLICIES, type PolicyName, Vm } from './vm.ts';

const REGIONS = 4;
const BYTES = REGIONS * 2 ** 21;
const READ = 0;
const WRITE = 1;

function machine(policy: PolicyName, npt = true): Vm {
  const vm = new Vm({ host: new FlatHost({ bytes: BYTES, level: 2 }), npt, policy: POLICIES[policy] });
  setFlags(vm, 0);
  vm.createVcpu();
  return vm;
}

function setFlags(vm: Vm, flags: number): void {
  vm.setUserMemoryRegion({ slot: 0, flags, guestPhysAddr: 0, memorySize: BYTES, userspaceAddr: FLAT_HVA });
}

function states(vm: Vm): number[] {
  const into = new Uint8Array(REGIONS);
  regionStates(vm, into);
  return Array.from(into);
}

function dirty(vm: Vm): number[] {
  const into = new Uint16Array(REGIONS);
  regionDirtyPages(vm, 0, into);
  return Array.from(into);
}

describe('regions of a VM', () => {
  it('are not mapped until they are touched', () => {
    const vm = machine('lazy');
    expect(states(vm)).toEqual([0, 0, 0, 0]);
    vm.vcpus[0].touchPage(512, WRITE);
    expect(states(vm)).toEqual([REGION_UNMAPPED, REGION_LARGE_WRITABLE, REGION_UNMAPPED, REGION_UNMAPPED]);
    expect(dirty(vm)).toEqual([0, 0, 0, 0]);
  });

  // biome-ignore format: a table
  it.each<[PolicyName, number, number, number]>([
    // policy     log started              one page written         dirty pages there
    ['zap',       REGION_UNMAPPED,         REGION_SPLIT,            2],
    ['lazy',      REGION_LARGE_READ_ONLY,  REGION_SPLIT,            2],
    ['lazy+bug',  REGION_LARGE_READ_ONLY,  REGION_LARGE_WRITABLE,   1],
    ['eager',     REGION_SPLIT,            REGION_SPLIT,            2],
  ])('under %s are as the policy left them', (policy, started, written, pages) => {
    const vm = machine(policy);
    for (let region = 0; region < REGIONS; region++) vm.vcpus[0].touchPage(region * 512, WRITE);
    expect(states(vm)).toEqual(Array(4).fill(REGION_LARGE_WRITABLE));
    setFlags(vm, MEM_LOG_DIRTY_PAGES);
    expect(states(vm)).toEqual(Array(4).fill(started));
    vm.vcpus[0].touchPage(2 * 512 + 7, WRITE);
    vm.vcpus[0].touchPage(2 * 512 + 300, WRITE);
    expect(states(vm)).toEqual([started, started, written, started]);
    expect(dirty(vm)).toEqual([0, 0, pages, 0]);
    vm.getDirtyLog(0);
    expect(dirty(vm)).toEqual([0, 0, 0, 0]);
    // Getting the log protects 4 KiB entries only: what the bug made writable stays so.
    expect(states(vm)[2]).toBe(written);
  });

  it('are looked at without a trace of it', () => {
    const vm = machine('lazy');
    vm.vcpus[0].touchPage(5, READ);
    const words = vm.mmu.arena.words.slice();
    states(vm);
    dirty(vm);
    expect(vm.mmu.arena.words).toEqual(words);
    expect(vm.verify()).toEqual([]);
  });

  it('map nothing after everything was zapped at once', () => {
    const vm = machine('lazy');
    vm.vcpus[0].touchPage(5, READ);
    vm.setNxHugePages(true);
    expect(states(vm)).toEqual([0, 0, 0, 0]);
  });

  it('cannot be seen under shadow paging', () => {
    expect(() => states(machine('lazy', false))).toThrow('under nested paging only');
  });
});
