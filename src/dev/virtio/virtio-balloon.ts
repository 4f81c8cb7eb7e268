/**
 * A virtio balloon (virtio 1.2, 5.5): pages that the driver puts into it go back to the host, which takes its mappings away (the MMU
 * hears of it from its notifier) and gives a page of zeros at the next touch.
 */
import type { DescriptorChain } from './descriptor-chain.ts';
import { VirtioDevice, type VirtioHost } from './virtio-device.ts';

const INFLATE = 0;
const PAGE = 4096;
const F_MUST_TELL_HOST = 1 << 0;
const F_DEFLATE_ON_OOM = 1 << 2;
const ACTUAL = 4;
/** Pages that one chain can name; Linux names 256. */
const MAX_PAGES = 4096;

export class VirtioBalloon extends VirtioDevice {
  /** Pages that have come to the host so far, again and again if so. */
  discarded = 0;

  constructor(host: VirtioHost) {
    const features = F_MUST_TELL_HOST | F_DEFLATE_ON_OOM;
    super({ type: 5, pciClass: 0x00ff00, features, queues: [128, 128], configBytes: 8 }, host);
  }

  /** How large the host wants the balloon to be. */
  setTarget(pages: number): void {
    new DataView(this.config.buffer).setUint32(0, pages, true);
    this.transport.configChanged();
  }

  /** How large the driver says that it is. */
  get actualPages(): number {
    return new DataView(this.config.buffer).getUint32(ACTUAL, true);
  }

  override writeConfig(offset: number, value: number): void {
    if (offset >= ACTUAL) this.config[offset] = value;
  }

  /** The driver names pages by frame numbers of 32 bits. */
  protected serve(queue: number, chain: DescriptorChain): number {
    if (queue !== INFLATE) return 0;
    const words = new DataView(new ArrayBuffer(Math.min(chain.readableBytes, 4 * MAX_PAGES) & ~3));
    chain.read(0, new Uint8Array(words.buffer));
    for (let at = 0; at < words.byteLength; at += 4) {
      this.memory.discard(words.getUint32(at, true) * PAGE, PAGE);
      this.discarded++;
    }
    this.effort = (words.byteLength / 4) * PAGE;
    return 0;
  }
}
