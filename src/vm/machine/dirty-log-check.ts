/**
 * The dirty log against memory itself: a page that has changed since the last round and isn't in the log is lost to
 * whoever migrates the guest. Keeps a copy of all RAM.
 */
import { PAGE_BYTES } from '../../base/page.ts';
import type { Pc } from './pc.ts';

export class DirtyLogCheck {
  /** Rounds done, pages that the log named, pages that it should have named. */
  rounds = 0;
  logged = 0;
  /** Guest frames of what was lost; the first hundred. */
  readonly lost: number[] = [];
  lostCount = 0;
  private readonly pc: Pc;
  private readonly copy: Int32Array;
  /** Pages of this round, a bit each. */
  private bitmap: Int32Array;

  /** Starts the log. */
  constructor(pc: Pc) {
    this.pc = pc;
    this.copy = new Int32Array(wordsOf(pc));
    this.bitmap = new Int32Array(Math.ceil(pc.ramBytes / PAGE_BYTES / 32));
    for (const { unit } of pc.cpus) unit.onRingFull = () => this.takeRings();
    pc.setLogging(true);
  }

  /** Gets the log, and compares. Between two runs of the machine only. */
  round(): void {
    const { pc, copy } = this;
    if (pc.unit.dirtyRing === null) this.bitmap = pc.vm.getDirtyLog(0);
    else this.takeRings();
    const { bitmap } = this;
    const ram = wordsOf(pc);
    this.rounds++;
    for (let page = 0; page < pc.ramBytes / PAGE_BYTES; page++) {
      const from = page * WORDS;
      if ((bitmap[page >>> 5] >>> (page & 31)) & 1) {
        this.logged++;
        copy.set(ram.subarray(from, from + WORDS), from);
      } else if (changed(copy, ram, from)) {
        copy.set(ram.subarray(from, from + WORDS), from);
        if (this.lostCount++ < 100) this.lost.push(page);
      }
    }
    bitmap.fill(0);
  }

  private takeRings(): void {
    const { pc, bitmap } = this;
    for (const { unit } of pc.cpus) {
      unit.dirtyRing?.harvest((_slot, page) => {
        bitmap[page >>> 5] |= 1 << (page & 31);
      });
    }
    pc.vm.resetDirtyRings();
  }
}

const WORDS = PAGE_BYTES / 4;

function wordsOf(pc: Pc): Int32Array {
  return new Int32Array(pc.ram.buffer, pc.ram.byteOffset, pc.ramBytes / 4);
}

function changed(before: Int32Array, now: Int32Array, from: number): boolean {
  for (let i = from; i < from + WORDS; i += 4) {
    const difference =
      (before[i] ^ now[i]) | (before[i + 1] ^ now[i + 1]) | (before[i + 2] ^ now[i + 2]) | (before[i + 3] ^ now[i + 3]);
    if (difference !== 0) return true;
  }
  return false;
}
