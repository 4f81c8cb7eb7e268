/**
 * A virtio device without its transport: features, configuration, queues, and what to do with each chain. The transport
 * (`virtio-pci.ts`) tells it of the driver's notifications and takes its interrupts.
 *
 * INVARIANT turns: one notification is answered by at most a ring's worth of chains and TURN_BYTES bytes (or as much other work); if more
 * wait, the device goes on later, by a nanosecond of virtual time a byte, so that no driver can keep it from coming to an end, and in
 * real time the turns of a busy device don't pile up.
 */
import type { TimerClient, VirtualClock } from '../clock.ts';
import type { GuestMemory } from '../guest-memory.ts';
import type { Workload } from '../workload.ts';
import type { DescriptorChain } from './descriptor-chain.ts';
import { VirtQueue } from './virtqueue.ts';

// Feature bits, low word; VERSION_1 is bit 32.
export const F_INDIRECT_DESC = 1 << 28;
export const F_EVENT_IDX = 1 << 29;
export const F_VERSION_1_HI = 1;

/** Answer of `serve`: the chain stays with the device, which gives it back later. */
export const KEEP = -1;

const TURN_BYTES = 64 * 2 ** 20;
const NEXT_TURN_NS = 1000;
/** Bytes that could be copied while any chain is served. */
const CHAIN_BYTES = 16384;
const NO_VECTOR = 0xffff;

export interface VirtioIdentity {
  /** Device ID of the specification's chapter 5. */
  readonly type: number;
  /** Class code of the PCI function. */
  readonly pciClass: number;
  /** Feature bits 0 to 31 of its own. */
  readonly features: number;
  /** Sizes of its queues. */
  readonly queues: readonly number[];
  /** Length of its configuration. */
  readonly configBytes: number;
}

/** What the transport does for a device. */
export interface VirtioTransport {
  /** An interrupt for a queue. */
  interrupt(queue: VirtQueue): void;
  /** The device's configuration has changed. */
  configChanged(): void;
  /** The driver has broken the rules: DEVICE_NEEDS_RESET. */
  needsReset(): void;
}

export interface VirtioHost {
  readonly memory: GuestMemory;
  readonly clock: VirtualClock;
  /** Where the device says how much it has done. */
  readonly workload?: Workload;
}

export abstract class VirtioDevice implements TimerClient {
  readonly identity: VirtioIdentity;
  readonly queues: VirtQueue[];
  readonly config: Uint8Array;
  /** What both sides have agreed on, bits 0 to 31. */
  features = 0;
  /** DRIVER_OK is set and nothing is broken. */
  isLive = false;
  /** A bit a queue: it has more to do at the next turn. */
  postponed = 0;
  transport!: VirtioTransport;
  /** Of the chain that is served: what it costs besides its own bytes, in bytes that could have been copied instead. */
  protected effort = 0;
  protected readonly memory: GuestMemory;
  protected readonly clock: VirtualClock;
  private readonly workload: Workload | undefined;
  private readonly timer: number;

  constructor(identity: VirtioIdentity, host: VirtioHost) {
    this.identity = identity;
    this.memory = host.memory;
    this.clock = host.clock;
    this.workload = host.workload;
    this.config = new Uint8Array(identity.configBytes);
    this.queues = identity.queues.map((size) => new VirtQueue(host.memory, size, NO_VECTOR));
    this.timer = host.clock.addTimer(this);
  }

  /** The driver has set DRIVER_OK. */
  start(features: number): void {
    this.features = features;
    for (const queue of this.queues) {
      queue.eventIdx = (features & F_EVENT_IDX) !== 0;
      queue.indirect = (features & F_INDIRECT_DESC) !== 0;
    }
    this.isLive = true;
    this.started();
  }

  reset(): void {
    this.isLive = false;
    this.features = 0;
    this.postponed = 0;
    this.clock.cancel(this.timer);
    for (const queue of this.queues) queue.reset(NO_VECTOR);
    this.stopped();
  }

  /** The driver has something in a queue. */
  notify(index: number): void {
    if (this.isLive && index < this.queues.length) this.drain(index);
  }

  onTimer(): void {
    const queues = this.postponed;
    this.postponed = 0;
    for (let i = 0; i < this.queues.length; i++) if (queues & (1 << i)) this.notify(i);
  }

  /** The driver has written a byte of the configuration. */
  writeConfig(_offset: number, _value: number): void {}

  /** A word of the configuration is about to be read. */
  refreshConfig(): void {}

  /** Does what a chain asks; bytes written into it, or KEEP. */
  protected abstract serve(queue: number, chain: DescriptorChain): number;

  /** For queues whose chains are taken when there is something to put into them. */
  protected waitsForUs(_queue: number): boolean {
    return false;
  }

  protected started(): void {}
  protected stopped(): void {}

  /** All that waits in a queue, up to a turn's worth. */
  protected drain(index: number): void {
    if (this.waitsForUs(index)) return this.filled(index);
    const queue = this.queues[index];
    const { chain } = queue;
    let bytes = 0;
    let chains = 0;
    for (; queue.pop(); chains++) {
      this.effort = 0;
      const written = this.serve(index, chain);
      if (written !== KEEP) queue.push(chain.head, written);
      bytes += chain.readableBytes + chain.writableBytes + this.effort;
      if (chains < queue.size && bytes < TURN_BYTES) continue;
      this.postponed |= 1 << index;
      this.clock.schedule(this.timer, this.clock.now + Math.max(NEXT_TURN_NS, bytes));
      break;
    }
    if (this.workload !== undefined) this.workload.bytes += bytes + chains * CHAIN_BYTES;
    queue.askForNotification();
    this.finish(queue);
  }

  /** The driver has put chains into a queue that waits for us. */
  protected filled(_queue: number): void {}

  /** Puts bytes into the next chain of such a queue; false if none waits. */
  protected deliver(queue: VirtQueue, ...parts: readonly Uint8Array[]): boolean {
    if (!this.isLive || !queue.pop()) return this.finish(queue);
    let at = 0;
    for (const part of parts) at += queue.chain.write(at, part);
    queue.push(queue.chain.head, at);
    queue.askForNotification();
    this.finish(queue);
    return true;
  }

  /** Interrupt or complaint after work on a queue. Always false. */
  protected finish(queue: VirtQueue): false {
    if (queue.isBroken) {
      if (this.isLive) {
        this.isLive = false;
        this.transport.needsReset();
      }
    } else if (queue.wantsInterrupt()) {
      this.transport.interrupt(queue);
    }
    return false;
  }
}
