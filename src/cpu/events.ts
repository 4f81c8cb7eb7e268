/** What waits for the CPU to look up between two instructions: an interrupt, the interrupt line, an NMI. */
export class PendingEvents {
  /** Vector, or -1. One waits at a time. */
  interrupt = -1;
  /** As long as it is high, the bus has a vector. */
  line = false;
  nmi = false;

  /** Is there any, as far as it isn't known to be kept out? */
  waits(nmiBlocked: boolean): boolean {
    return this.line || this.interrupt >= 0 || (this.nmi && !nmiBlocked);
  }

  takeInterrupt(): number {
    const vector = this.interrupt;
    this.interrupt = -1;
    return vector;
  }
}
