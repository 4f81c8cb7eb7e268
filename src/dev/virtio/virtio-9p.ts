/** A 9P transport over virtio: one folder of the host's, found by the guest by its tag. */
import type { FolderPort } from '../p9/folder-port.ts';
import { toUtf8 } from '../p9/message.ts';
import { MAX_MESSAGE_BYTES, P9Server } from '../p9/p9-server.ts';
import type { DescriptorChain } from './descriptor-chain.ts';
import { VirtioDevice, type VirtioHost } from './virtio-device.ts';

const F_MOUNT_TAG = 1 << 0;
/** Of an entry of a folder that is listed. */
const ENTRY_EFFORT = 4096;

export class Virtio9p extends VirtioDevice {
  private readonly server: P9Server;

  constructor(host: VirtioHost, folder: FolderPort, tag: string) {
    const name = toUtf8(tag);
    super({ type: 9, pciClass: 0x00ff00, features: F_MOUNT_TAG, queues: [128], configBytes: 2 + name.length }, host);
    this.config[0] = name.length;
    this.config.set(name, 2);
    this.server = new P9Server(folder);
  }

  protected serve(_queue: number, chain: DescriptorChain): number {
    const request = new Uint8Array(Math.min(chain.readableBytes, MAX_MESSAGE_BYTES));
    chain.read(0, request);
    const { listed } = this.server;
    const answer = this.server.answer(request, chain.writableBytes);
    this.effort = (this.server.listed - listed) * ENTRY_EFFORT;
    return chain.write(0, answer);
  }

  protected override stopped(): void {
    // Not there yet when the queues are made.
    this.server?.reset();
  }
}
