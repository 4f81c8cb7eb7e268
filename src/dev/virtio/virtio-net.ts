/** A virtio network card (virtio 1.2, 5.1) on the user-mode network: one pair of queues, no offloads. */
import { GUEST_MAC, type UserNet } from '../net/user-net.ts';
import type { DescriptorChain } from './descriptor-chain.ts';
import { VirtioDevice, type VirtioHost } from './virtio-device.ts';

const RECEIVE = 0;
const F_MAC = 1 << 5;
const F_STATUS = 1 << 16;
const LINK_UP = 1;
/** In front of each frame; of what it says, only the number of buffers isn't 0. */
const HEADER_BYTES = 12;
const MAX_FRAME_BYTES = 1514;
/** Frames that wait for a buffer; a guest that gives none loses more. */
const MAX_WAITING = 4096;

export class VirtioNet extends VirtioDevice {
  private readonly net: UserNet;
  private readonly header = Uint8Array.from({ length: HEADER_BYTES }, (_, i) => (i === 10 ? 1 : 0));
  private waiting: Uint8Array[] = [];

  constructor(host: VirtioHost, net: UserNet) {
    super({ type: 1, pciClass: 0x020000, features: F_MAC | F_STATUS, queues: [256, 256], configBytes: 8 }, host);
    this.net = net;
    this.config.set(GUEST_MAC);
    this.config[6] = LINK_UP;
    net.deliver = (frame) => {
      if (!this.isLive || this.waiting.length >= MAX_WAITING) return;
      this.waiting.push(frame);
      this.filled();
    };
  }

  protected override waitsForUs(queue: number): boolean {
    return queue === RECEIVE;
  }

  protected override filled(): void {
    const queue = this.queues[RECEIVE];
    let taken = 0;
    while (taken < this.waiting.length && this.isLive && queue.pop()) {
      const { chain } = queue;
      const frame = this.waiting[taken++];
      // One that doesn't fit is lost, as on a wire.
      const fits = chain.writableBytes >= HEADER_BYTES + frame.length;
      if (fits) {
        chain.write(0, this.header);
        chain.write(HEADER_BYTES, frame);
      }
      queue.push(chain.head, fits ? HEADER_BYTES + frame.length : 0);
    }
    if (taken > 0) this.waiting = this.waiting.slice(taken);
    queue.askForNotification();
    this.finish(queue);
  }

  protected serve(_queue: number, chain: DescriptorChain): number {
    const bytes = chain.readableBytes - HEADER_BYTES;
    if (bytes <= 0 || bytes > MAX_FRAME_BYTES) return 0;
    const frame = new Uint8Array(bytes);
    chain.read(HEADER_BYTES, frame);
    this.net.receive(frame);
    return 0;
  }

  protected override stopped(): void {
    this.waiting = [];
    this.net.closeAll();
  }
}
