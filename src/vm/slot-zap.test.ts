/** What goes with a slot: everything, or (KVM_X86_QUIRK_SLOT_ZAP_ALL off, Linux 6.12) what is the slot's own. */
import { describe, expect, it } from 'vitest';
import { EINVAL } from '../base/errno.ts';
import { FLAT_HVA } from '../mem/flat-host.ts';
import { zapAllFast, zapSlot } from '../mmu/page-zap.ts';
import { TP_PREPARE_ZAP_PAGE } from '../trace/tracepoints.ts';
import { buildGuest, type Guest } from './testing/build-guest.ts';
import {
  activePages,
  buildVm,
  type BuiltVm,
  errnoOf,
  expectSound,
  flushesDuring,
  READ,
  WRITE,
} from './testing/build-vm.ts';
import { CAP_DISABLE_QUIRKS, CAP_DISABLE_QUIRKS2, KERNEL_6_12, QUIRK_SLOT_ZAP_ALL } from './vm.ts';

const OTHER = 2 ** 30;

function build(tdpMmu: boolean, targeted: boolean): BuiltVm {
  const built = buildVm({ tdpMmu, kernel: KERNEL_6_12, pages: 1024 });
  if (targeted) built.vm.enableCap(CAP_DISABLE_QUIRKS2, QUIRK_SLOT_ZAP_ALL);
  setOther(built, 1024 * 4096);
  built.vcpu.touchPage(3, WRITE);
  built.vcpu.touchPage(OTHER / 4096 + 3, WRITE);
  built.vcpu.touchPage(OTHER / 4096 + 600, READ);
  return built;
}

function setOther({ vm }: BuiltVm, memorySize: number, guestPhysAddr = OTHER): void {
  vm.setUserMemoryRegion({ slot: 1, flags: 0, guestPhysAddr, memorySize, userspaceAddr: FLAT_HVA + OTHER });
}

function faultsOf({ vcpu }: BuiltVm, gfn: number): number {
  const before = vcpu.mmu.stats.pf_taken;
  vcpu.touchPage(gfn, READ);
  return vcpu.mmu.stats.pf_taken - before;
}

describe.each([
  ['the rmap-based engine', false],
  ['the TDP MMU', true],
])('a slot that goes, in %s', (_name, tdpMmu) => {
  it('takes all mappings along, unless the quirk is off', () => {
    for (const targeted of [false, true]) {
      const built = build(tdpMmu, targeted);
      setOther(built, 0);
      expect(faultsOf(built, 3), String(targeted)).toBe(targeted ? 0 : 1);
      expect(errnoOf(() => built.vcpu.touchPage(OTHER / 4096 + 3, READ))).not.toBe(0);
      expectSound(built.vm);
    }
  });

  it('asks for one flush if something of it was mapped, for none if nothing was', () => {
    const built = build(tdpMmu, true);
    expect(flushesDuring(built.vm, () => setOther(built, 0))).toBe(1);
    setOther(built, 1024 * 4096);
    expect(flushesDuring(built.vm, () => setOther(built, 0))).toBe(0);
  });

  it('moves without touching others', () => {
    const built = build(tdpMmu, true);
    setOther(built, 1024 * 4096, 2 * OTHER);
    expect(faultsOf(built, 3)).toBe(0);
    expect(faultsOf(built, (2 * OTHER) / 4096 + 3)).toBe(1);
    expectSound(built.vm);
  });
});

describe('under shadow paging, a slot that goes', () => {
  const MIB = 2 ** 20;
  const DATA = { id: 1, gpa: 16 * MIB, bytes: 4 * MIB };
  /** The guest's tables are in slot 0, its data in slot 1. */
  function shadowed(vcpus = 1): Guest {
    const guest = buildGuest({ slots: [DATA], maps: [{ va: 0x40000000, gpa: DATA.gpa, count: 4 }], vcpus });
    guest.expectDone('w 0x40000000 1', 'w 0x40003000 1');
    return guest;
  }
  /** Tables that `zapSlot` announces as zapped. */
  function zapped({ vm }: Guest, id: number): number {
    vm.trace.clear();
    vm.trace.on = true;
    zapSlot(vm.mmu, vm.mmu.slots[0].byId(id)!);
    const ids = Array.from({ length: vm.trace.count }, (_, n) => vm.trace.words[vm.trace.offsetOf(n)]);
    return ids.filter((tracepoint) => tracepoint === TP_PREPARE_ZAP_PAGE).length;
  }

  it('takes along what shadows tables in it, and leaves shadows of tables elsewhere', () => {
    const guest = shadowed();
    const tables = activePages(guest.vm).length;
    expect(zapped(guest, DATA.id)).toBe(0);
    expect(activePages(guest.vm).length).toBe(tables);
    expect(zapped(guest, 0)).toBe(tables);
    expect(activePages(guest.vm)).toEqual([]);
    expectSound(guest.vm);
  });

  it('passes over a root that is obsolete and still in use', () => {
    const guest = shadowed(2);
    zapAllFast(guest.vm.mmu);
    expect(guest.vm.mmu.pages.rootCount[guest.vcpu.mmu.root.sp]).toBe(1);
    // New tables, of the other vCPU.
    guest.expectDone('vcpu 1', 'nop');
    const tables = activePages(guest.vm).length;
    expect(zapped(guest, 0)).toBe(tables);
    expectSound(guest.vm);
  });
});

it('quirks are disabled for good, and DISABLE_QUIRKS2 refuses what it does not know', () => {
  const { vm } = buildVm({ kernel: KERNEL_6_12 });
  expect(errnoOf(() => vm.enableCap(CAP_DISABLE_QUIRKS2, 1 << 16))).toBe(EINVAL);
  vm.enableCap(CAP_DISABLE_QUIRKS, (1 << 16) | QUIRK_SLOT_ZAP_ALL);
  vm.enableCap(CAP_DISABLE_QUIRKS2, 0);
  expect(vm.mmu.disabledQuirks).toBe(QUIRK_SLOT_ZAP_ALL);
  const old = buildVm().vm;
  expect(errnoOf(() => old.enableCap(CAP_DISABLE_QUIRKS2, QUIRK_SLOT_ZAP_ALL))).toBe(EINVAL);
  expect([old.checkExtension(CAP_DISABLE_QUIRKS2), vm.checkExtension(CAP_DISABLE_QUIRKS2)]).toEqual([0x7f, 0x7ff]);
});
