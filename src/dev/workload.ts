/**
 * What devices do at a guest's request takes time of the host's, but no instruction stands for it. The machine's loop looks here, so
 * that a guest that keeps devices busy gives way as one does that computes.
 */
export class Workload {
  /** Since the loop began: bytes that were copied, or that could have been in that time. */
  bytes = 0;

  get isHigh(): boolean {
    return this.bytes > MOST_BYTES;
  }
}

/** Some ten milliseconds. */
const MOST_BYTES = 64 * 2 ** 20;
