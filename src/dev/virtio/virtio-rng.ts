/** A virtio entropy device (virtio 1.2, 5.4) whose numbers follow from a seed: runs can be repeated, secrets are none. */
import { Prng } from '../../base/prng.ts';
import type { DescriptorChain } from './descriptor-chain.ts';
import { VirtioDevice, type VirtioHost } from './virtio-device.ts';

/** A driver that asks for more gets less, which it has to expect. */
const MAX_BYTES = 65536;

export class VirtioRng extends VirtioDevice {
  /** State of the generator. */
  state: number;

  constructor(host: VirtioHost, seed: number) {
    super({ type: 4, pciClass: 0x00ff00, features: 0, queues: [64], configBytes: 0 }, host);
    this.state = seed >>> 0;
  }

  protected serve(_queue: number, chain: DescriptorChain): number {
    const prng = new Prng(this.state);
    const bytes = Uint8Array.from({ length: Math.min(chain.writableBytes, MAX_BYTES) }, () => prng.next() >>> 24);
    this.state = prng.state;
    return chain.write(0, bytes);
  }
}
