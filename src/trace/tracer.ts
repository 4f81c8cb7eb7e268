/**
 * The trace ring: fixed-size records in an Int32Array, written at the very point where the kernel fires the
 * tracepoint, decoded later or never. Off, an event costs one load and a branch; on, a few stores.
 *
 * Callers test `on` themselves before they compute arguments:
 *
 *     if (trace.on) trace.emit4(TP_X, a, b, c, d);
 */
import { RECORD_WORDS } from './tracepoints.ts';

export class Tracer {
  on = false;
  /** Records written since `clear`; beyond the capacity the oldest are overwritten. */
  count = 0;
  words: Int32Array;
  private capacity: number;
  /** Where in `words` the next record goes; their end before the ring comes round. */
  private next = 0;
  /** Grow instead of overwriting: for runs that must keep every event. */
  private readonly keepAll: boolean;

  constructor(options: { capacity?: number; keepAll?: boolean } = {}) {
    this.capacity = options.capacity ?? 1024;
    this.keepAll = options.keepAll ?? false;
    this.words = new Int32Array(this.capacity * RECORD_WORDS);
  }

  /** Records that can be read, oldest first: [first, count). */
  get first(): number {
    return Math.max(0, this.count - this.capacity);
  }

  clear(): void {
    this.count = 0;
    this.next = 0;
  }

  /** Offset in `words` of record `n`. */
  offsetOf(n: number): number {
    return (n % this.capacity) * RECORD_WORDS;
  }

  /** Up to eleven words of fields, in the order of the catalogue. */
  emit(id: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0, i = 0, j = 0, k = 0): void {
    const at = this.reserve();
    const w = this.words;
    w[at] = id;
    w[at + 1] = a;
    w[at + 2] = b;
    w[at + 3] = c;
    w[at + 4] = d;
    w[at + 5] = e;
    w[at + 6] = f;
    w[at + 7] = g;
    w[at + 8] = h;
    w[at + 9] = i;
    w[at + 10] = j;
    w[at + 11] = k;
  }

  private reserve(): number {
    if (this.next === this.words.length) this.turn();
    const at = this.next;
    this.next = at + RECORD_WORDS;
    this.count++;
    return at;
  }

  private turn(): void {
    if (this.keepAll) this.grow();
    else this.next = 0;
  }

  private grow(): void {
    const larger = new Int32Array(this.words.length * 2);
    larger.set(this.words);
    this.words = larger;
    this.capacity *= 2;
  }
}
