/** The key that speaks to us instead of the guest: Ctrl-A, then x to leave, or Ctrl-A to send it. As in QEMU. */
const CTRL_A = 1;

export class EscapeKey {
  /** Ctrl-A x was typed. */
  wantsToLeave = false;
  private escaped = false;

  /** What of `keys` is for the guest. */
  filter(keys: Uint8Array): Uint8Array {
    const rest: number[] = [];
    for (const key of keys) {
      if (!this.escaped) {
        if (key === CTRL_A) this.escaped = true;
        else rest.push(key);
        continue;
      }
      this.escaped = false;
      if (key === CTRL_A) rest.push(key);
      else if (key === 0x78 || key === 0x58) this.wantsToLeave = true;
    }
    return Uint8Array.from(rest);
  }
}
