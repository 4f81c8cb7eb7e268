/** A virtio console (virtio 1.2, 5.3) with one port: /dev/hvc0 of a Linux guest. */
import type { ByteSink } from '../uart-16550.ts';
import type { DescriptorChain } from './descriptor-chain.ts';
import { VirtioDevice, type VirtioHost } from './virtio-device.ts';

const RECEIVE = 0;

export class VirtioConsole extends VirtioDevice {
  /** What the host has sent and the guest has not taken. */
  waiting: Uint8Array = new Uint8Array(0);
  private readonly sink: ByteSink;

  constructor(host: VirtioHost, sink: ByteSink) {
    super({ type: 3, pciClass: 0x078000, features: 0, queues: [64, 64], configBytes: 12 }, host);
    this.sink = sink;
  }

  /** Host side: bytes for the guest. */
  receive(bytes: Uint8Array): void {
    const all = new Uint8Array(this.waiting.length + bytes.length);
    all.set(this.waiting);
    all.set(bytes, this.waiting.length);
    this.waiting = all;
    this.filled();
  }

  protected override waitsForUs(queue: number): boolean {
    return queue === RECEIVE;
  }

  protected override filled(): void {
    const queue = this.queues[RECEIVE];
    while (this.isLive && this.waiting.length > 0 && queue.pop()) {
      const count = queue.chain.write(0, this.waiting);
      queue.push(queue.chain.head, count);
      this.waiting = this.waiting.slice(count);
    }
    queue.askForNotification();
    this.finish(queue);
  }

  protected serve(_queue: number, chain: DescriptorChain): number {
    chain.eachReadable(0, chain.readableBytes, (piece) => {
      for (const byte of piece) this.sink.writeByte(byte);
    });
    return 0;
  }
}
