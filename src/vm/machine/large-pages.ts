/**
 * Where pieces of large pages may be in the software TLB, which knows only pages of 4 KiB: a flush of one address must
 * take all pieces of its page. A set of hashes, so that it may say yes where no would be right, never the other way
 * round.
 */
const SLOTS = 4096;
/** log2 of the page sizes above 4 KiB that there are: 2 and 4 MiB, 1 GiB. */
const SHIFTS: readonly number[] = [21, 22, 30];

export class LargePages {
  /** The generation in which a slot was taken. */
  private readonly stamps = new Int32Array(SLOTS);
  private generation = 1;

  /** A piece, at this address, of a page of 2^shift bytes was filled. */
  add(lo: number, hi: number, shift: number): void {
    this.stamps[slotOf(lo, hi, shift)] = this.generation;
  }

  has(lo: number, hi: number): boolean {
    for (const shift of SHIFTS) if (this.stamps[slotOf(lo, hi, shift)] === this.generation) return true;
    return false;
  }

  clear(): void {
    this.generation = (this.generation + 1) | 0;
    // After 2^32 of them old stamps would come alive again.
    if (this.generation === 0) {
      this.stamps.fill(0);
      this.generation = 1;
    }
  }
}

function slotOf(lo: number, hi: number, shift: number): number {
  return (Math.imul((lo >>> shift) ^ Math.imul(hi, 0x85ebca6b), 0x9e3779b1) ^ shift) & (SLOTS - 1);
}
