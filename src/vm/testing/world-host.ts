/** The host's side of a world: memory, and what the VMM does to it without KVM. The model is told. */
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import type { HostMemory } from '../../mem/host-memory.ts';
import { HostMm, PROT_NONE, PROT_READ, PROT_RWX } from '../../mem/host/host-mm.ts';
import type { MmuNotifier } from '../../mmu/notifier.ts';
import { DATA_GFNS, HOST_PAGES, LOW_HOST_PAGE, PAGE, SLOT_PLANS, WORDS_PER_PAGE } from './guest-image.ts';
import type { GuestModel } from './guest-model.ts';
import type { Narrator, WorldPlan } from './world-plan.ts';

const LINUX_HVA = 0x100000000000;

export class WorldHost {
  readonly memory: HostMemory;
  private readonly mm: HostMm | null;
  private readonly base: number;
  private readonly model: GuestModel;
  private readonly narrator: Narrator;
  private readonly mapped = new Uint8Array(HOST_PAGES).fill(1);
  private readonly bytes = new Uint8Array(8);
  private readonly pair = new Int32Array(this.bytes.buffer);
  private serial = 8192;

  constructor(kind: WorldPlan['host'], model: GuestModel, narrator: Narrator) {
    this.mm = kind === 'linux' ? new HostMm() : null;
    this.memory = this.mm ?? new FlatHost({ bytes: HOST_PAGES * PAGE, level: kind === 'flat-2m' ? 2 : 1 });
    this.base = this.mm ? LINUX_HVA : FLAT_HVA;
    if (this.mm) mapLinux(this.mm);
    this.model = model;
    this.narrator = narrator;
  }

  hva(hostPage: number): number {
    return this.base + hostPage * PAGE;
  }

  /** A value that nobody wrote before, and that as an entry of a table is not present. */
  nextValue(): number {
    return this.serial++ << 1;
  }

  /** Contents of memory as the host has them. */
  word(hostPage: number, offset: number): number {
    return this.memory.phys.read32(this.memory.pfnAt(this.hva(hostPage)), offset);
  }

  /** The VMM's own write of 8 bytes: 0 or a negative errno. The model isn't told. */
  write(hostPage: number, offset: number, lo: number, hi: number): number {
    this.pair[0] = lo;
    this.pair[1] = hi;
    return this.memory.writeUser(this.hva(hostPage) + offset, this.bytes, 8);
  }

  /** First contents. */
  poke(hostPage: number, offset: number, word: number): void {
    this.model.words[this.model.wordIndex(hostPage, offset)] = word;
    this.pair[0] = word;
    if (this.memory.writeUser(this.hva(hostPage) + offset, this.bytes, 4) !== 0) throw new Error('no memory to poke');
  }

  /** A look at A bits, or their removal. */
  age(a: number, b: number): void {
    const notifier = this.memory.notifier as MmuNotifier;
    const start = this.hva((b * 8) % HOST_PAGES);
    const end = start + [PAGE, 16 * PAGE, 512 * PAGE][a % 3];
    const how = (a >>> 2) % 3;
    this.narrator.say(
      () => `${['clear_flush_young', 'clear_young', 'test_young'][how]} from host page ${(b * 8) % HOST_PAGES}`,
    );
    if (how === 0) notifier.clearFlushYoung(start, end);
    else if (how === 1) notifier.clearYoung(start, end);
    else notifier.testYoung(start);
  }

  /** A system call of the VMM on its memory; with flat memory there is none, and pages age instead. */
  change(a: number, b: number, c: number): void {
    const { mm } = this;
    if (mm === null) return this.age(a, b);
    const what = a % 6;
    if (what === 5) {
      this.narrator.say(() => 'the VMM forks');
      mm.fork();
      return;
    }
    const first = this.pickHostPage(b);
    const end = first < LOW_HOST_PAGE ? LOW_HOST_PAGE : HOST_PAGES;
    const count = Math.min([1, 2, 16, 512][c & 3], end - first);
    const hva = this.hva(first);
    const { model, mapped } = this;
    this.narrator.say(
      () =>
        `${['dontneed', 'munmap', 'mmap', 'mprotect', 'mprotect'][what]} ${(c >>> 2) % 3} of host pages ${first} to ${first + count - 1}`,
    );
    if (what === 0) mm.madviseDontneed(hva, count * PAGE);
    else if (what === 1) mm.munmap(hva, count * PAGE);
    else if (what >= 3) mm.mprotect(hva, count * PAGE, [PROT_NONE, PROT_READ, PROT_RWX][(c >>> 2) % 3]);
    for (let page = first; page < first + count; page++) {
      if (what <= 1) model.words.fill(0, page * WORDS_PER_PAGE, (page + 1) * WORDS_PER_PAGE);
      if (what === 1) mapped[page] = model.rights[page] = 0;
      else if (what === 2 && !mapped[page]) {
        mm.mmapRegion({ base: this.hva(page), length: PAGE, backing: first < LOW_HOST_PAGE ? 'thp' : '4k' });
        mapped[page] = 1;
        model.rights[page] = 2;
      } else if (what >= 3) {
        if (!mapped[page]) break;
        model.rights[page] = (c >>> 2) % 3;
      }
    }
  }

  /** Any but those of slot 0. Near pages that the guest uses, mostly. */
  private pickHostPage(b: number): number {
    const gfn = DATA_GFNS[b % DATA_GFNS.length];
    const slot = SLOT_PLANS.find((s) => s.id !== 0 && gfn >= s.baseGfn && gfn < s.baseGfn + s.pages);
    if (slot === undefined) return (b * 512) % LOW_HOST_PAGE;
    return slot.hostPage + gfn - slot.baseGfn;
  }
}

/** Slots 1 and 3 with huge pages, the others without. */
function mapLinux(mm: HostMm): void {
  const map = (page: number, pages: number, backing: 'thp' | '4k'): void => {
    mm.mmapRegion({ base: LINUX_HVA + page * PAGE, length: pages * PAGE, backing });
  };
  map(0, LOW_HOST_PAGE, 'thp');
  map(LOW_HOST_PAGE, HOST_PAGES - LOW_HOST_PAGE, '4k');
}
