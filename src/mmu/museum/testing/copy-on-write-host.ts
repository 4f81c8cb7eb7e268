/** A host whose memory is read-only, in large pages, until somebody writes: as after fork. */
import { FlatHost } from '../../../mem/flat-host.ts';

export class CopyOnWriteHost extends FlatHost {
  private copied = false;
  override gupFast(hva: number): number {
    return this.copied ? super.gupFast(hva) : -1;
  }
  override gupSlow(hva: number, write: boolean): number {
    if (write) this.copied = true;
    return super.gupSlow(hva, write);
  }
}
