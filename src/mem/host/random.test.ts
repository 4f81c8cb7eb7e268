/** Random system calls and accesses: the invariants hold all the way, and a saved state goes on as the original. */
import { describe, expect, it } from 'vitest';
import { Prng } from '../../base/prng.ts';
import { HostMm, PROT_EXEC, PROT_NONE, PROT_READ, PROT_RWX } from './host-mm.ts';
import { FakeKvm } from './testing/fake-kvm.ts';
import { verifyHost } from './verify.ts';

const M = 1 << 20;
const PROTECTIONS = [PROT_NONE, PROT_READ, PROT_READ | PROT_EXEC, PROT_RWX, PROT_RWX, PROT_RWX];
const REGIONS = 3;

class Driver {
  readonly mm: HostMm;
  readonly kvm: FakeKvm;
  readonly prng: Prng;

  constructor(mm: HostMm, seed: number) {
    this.mm = mm;
    this.kvm = new FakeKvm(mm);
    // As KVM does with an entry that was used: it looks at the tables while a range is about to go.
    this.kvm.onStart = (start) => mm.markAccessed(Math.max(0, mm.pfnAt(start)));
    this.prng = new Prng(seed);
  }

  makeRegions(): void {
    for (let id = 0; id < REGIONS; id++) this.makeRegion(id);
  }

  /** One random call; what it answered. */
  step(): number {
    const { prng, mm } = this;
    const hva = this.place();
    const start = prng.chance(0.3) ? hva - (hva % (2 * M)) : hva;
    const length = prng.chance(0.3) ? prng.pick([2, 4, 6]) * M : 4096 * (1 + prng.int(40));
    switch (prng.int(14)) {
      case 0:
        return mm.munmap(start, length);
      case 1:
      case 2:
        return mm.mprotect(start, length, prng.pick(PROTECTIONS));
      case 3:
        return mm.madviseDontneed(start, length);
      case 4:
        return mm.fork();
      case 5:
        return mm.mmapRegion({ base: hva, length: 4096 * (1 + prng.int(8)), backing: prng.pick(['4k', 'thp']) });
      case 6:
        return mm.pinnedAccess(hva + prng.int(4096), new Uint8Array(8), prng.chance(0.5));
      case 7:
        return prng.chance(0.5) ? mm.writeUser(hva, new Uint8Array([1]), 1) : mm.readUser(hva, new Uint8Array(1), 1);
      case 8:
        return prng.chance(0.8) ? 0 : this.makeRegion(prng.int(REGIONS));
      default:
        return this.kvm.fault(hva, prng.chance(0.5)).pfn;
    }
  }

  private place(): number {
    return base(this.prng.int(REGIONS)) + 4096 * (this.prng.chance(0.7) ? this.prng.int(24) * 37 : this.prng.int(1600));
  }

  private makeRegion(id: number): number {
    const { mm, prng } = this;
    const length = prng.pick([2, 4]) * M;
    mm.munmap(base(id), 16 * M);
    const result = mm.mmapRegion({ base: base(id), length, backing: prng.pick(['4k', 'thp', 'thp', '2m']) });
    if (prng.chance(0.5)) for (let at = 0; at < length; at += 4096) mm.touchWrite(base(id) + at);
    return result;
  }
}

function base(id: number): number {
  return 0x100000000000 + id * 0x100000000;
}

describe('random calls', () => {
  it.each(['6.1', '6.12'] as const)('keep every invariant, %s', (kernel) => {
    for (let seed = 1; seed <= 30; seed++) {
      const driver = new Driver(new HostMm({ kernel, huge2m: 3 }), seed);
      driver.makeRegions();
      for (let round = 0; round < 15; round++) {
        for (let i = 0; i < 8; i++) driver.step();
        expect(verifyHost(driver.mm), `seed ${seed}, round ${round}`).toEqual([]);
      }
      expect(driver.kvm.nesting).toBe(0);
    }
  });

  it('go on from a saved state as from the original', () => {
    for (let seed = 100; seed < 110; seed++) {
      const first = new Driver(new HostMm(), seed);
      first.makeRegions();
      for (let i = 0; i < 80; i++) first.step();
      const second = new Driver(new HostMm(), first.prng.state);
      second.mm.load(first.mm.save());
      first.kvm.take();
      for (let i = 0; i < 80; i++) {
        expect(second.step()).toBe(first.step());
        expect(second.kvm.take()).toEqual(first.kvm.take());
      }
      const [saved, other] = [first.mm.save(), second.mm.save()];
      expect([other.lru, other.vmas, other.frames.freeSmall]).toEqual([saved.lru, saved.vmas, saved.frames.freeSmall]);
      expect(verifyHost(second.mm)).toEqual([]);
    }
  });
});
