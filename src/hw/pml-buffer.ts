/**
 * Page-modification logging: the CPU's own list of pages that it made dirty, filled from the end.
 *
 *     entry   0 ................... index   index+1 ......... 511
 *            |       free          |       |  logged          |        index 65535: full
 *
 * When a write is about to set D, the CPU first looks whether there is room. If not, it leaves the guest, and nothing has
 * happened. Source: Intel SDM vol. 3, 29.3.6.
 */
export const PML_ENTRIES = 512;
const LAST = PML_ENTRIES - 1;
/** One below 0, in 16 bits. */
const FULL = 0xffff;

export class PmlBuffer {
  /** @kvm SECONDARY_EXEC_ENABLE_PML */
  enabled = false;
  /** The next free entry. */
  index = LAST;
  /** Guest-physical addresses of pages, low word first. */
  readonly words = new Int32Array(2 * PML_ENTRIES);

  get isEmpty(): boolean {
    return this.index === LAST;
  }

  get isFull(): boolean {
    return this.index > LAST;
  }

  push(gpaLo: number, gpaHi: number): void {
    this.words[2 * this.index] = gpaLo & ~0xfff;
    this.words[2 * this.index + 1] = gpaHi;
    this.index = (this.index - 1) & FULL;
  }

  /** Hands what was logged to `take`, the latest first, and empties the buffer. @kvm vmx_flush_pml_buffer */
  drain(take: (gpaLo: number, gpaHi: number) => void): void {
    if (this.isEmpty) return;
    for (let i = this.isFull ? 0 : this.index + 1; i < PML_ENTRIES; i++) take(this.words[2 * i], this.words[2 * i + 1]);
    this.index = LAST;
  }
}
