/** A small generator, the same everywhere, and values that matter. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 1) >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
  chance(n: number): boolean {
    return this.next() % n === 0;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }

  /** An integer: corners, small ones, any. */
  value(): bigint {
    const kind = this.below(4);
    if (kind === 0) return BigInt.asUintN(64, this.pick(INTERESTING));
    if (kind === 1) return BigInt(this.below(256));
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }

  /** Eight bytes of numbers: doubles and floats that matter, among random bits. */
  lane(view: DataView, at: number): void {
    const kind = this.below(6);
    if (kind === 0) {
      view.setFloat64(at, this.pick(NUMBERS), true);
    } else if (kind === 1) {
      view.setFloat32(at, this.pick(NUMBERS), true);
      view.setFloat32(at + 4, this.pick(NUMBERS), true);
    } else if (kind === 2) {
      view.setFloat64(at, (this.next() - 2147483648) / 1000, true);
    } else {
      view.setBigUint64(at, this.value(), true);
    }
  }

  /** MXCSR: mostly as it is by default, but also other rounding, flags that are set, exceptions that aren't masked. */
  mxcsr(): number {
    const kind = this.below(4);
    if (kind === 0) return 0x1f80;
    if (kind === 1) return 0x1fa0;
    const masks = this.chance(4) ? this.below(64) << 7 : 0x1f80;
    const zeros = (this.chance(3) ? 0x40 : 0) | (this.chance(3) ? 0x8000 : 0);
    return masks | this.below(64) | (this.below(4) << 13) | zeros;
  }
}

const INTERESTING = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0x7fffffffn, 0x80000000n, 0xffffffffn, -1n, 1n << 63n];
const NUMBERS = [
  0, -0, 1, -1, 0.5, 1.5, 2.5, 1e10, -1e10, 1e-310, 5e-324, -2.5e-308, 2 ** -1022, 1e-40, 2 ** -126, 1.7e308, 3e38,
  Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 3e9, -3e9, 1e19, 123.456,
];
