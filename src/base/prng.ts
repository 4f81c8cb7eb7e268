/** mulberry32: a small seeded generator; one 32-bit word of state, so that a run can be stored and continued. */
export class Prng {
  state: number;
  constructor(seed: number) {
    this.state = seed >>> 0;
  }
  /** A uint32. */
  next(): number {
    const a = (this.state = (this.state + 0x6d2b79f5) >>> 0);
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  /** An integer in [0, n), n up to 2^32. */
  int(n: number): number {
    return Math.floor((this.next() / 4294967296) * n);
  }
  /** True with probability p. */
  chance(p: number): boolean {
    return this.next() / 4294967296 < p;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.int(list.length)];
  }
}
