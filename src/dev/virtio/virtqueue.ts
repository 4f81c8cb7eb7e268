/**
 * A split virtqueue as the device sees it (virtio 1.2, 2.7): three rings in guest memory, of which nothing is to be trusted.
 *
 *     descriptors   16 bytes each: address, length, flags, next
 *     available     flags, idx, heads of chains [size], used_event         the driver's
 *     used          flags, idx, (head, length) [size], avail_event         ours
 *
 * A chain that loops, leaves the table or memory, nests indirect tables or has more than MAX_CHAIN_BYTES makes the queue `broken`: the
 * device tells the driver that it needs a reset, and does nothing more. Every step here is bounded by the size of a ring or of a chain.
 */
import type { GuestMemory } from '../guest-memory.ts';
import { DescriptorChain } from './descriptor-chain.ts';

export const MAX_QUEUE_SIZE = 1024;
/** No driver sends as much at once; without a limit one chain could keep us busy for hours. */
export const MAX_CHAIN_BYTES = 64 * 2 ** 20;

const DESC_BYTES = 16;
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;
const DESC_F_INDIRECT = 4;
const AVAIL_F_NO_INTERRUPT = 1;
const TWO_32 = 4294967296;

export class VirtQueue {
  readonly maxSize: number;
  size: number;
  isEnabled = false;
  isBroken = false;
  /** Words of the ring's addresses: descriptors, available, used; low before high. */
  readonly address = new Uint32Array(6);
  /** MSI-X vector. */
  vector: number;
  /** Negotiated: VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC. */
  eventIdx = false;
  indirect = false;
  /** Chains taken and given back so far, modulo 2^16. */
  lastAvail = 0;
  usedIdx = 0;
  /** `usedIdx` at the last decision about an interrupt. */
  private decidedAt = 0;
  readonly chain: DescriptorChain;
  private readonly memory: GuestMemory;

  constructor(memory: GuestMemory, maxSize: number, vector: number) {
    this.memory = memory;
    this.maxSize = maxSize;
    this.size = maxSize;
    this.vector = vector;
    this.chain = new DescriptorChain(memory);
  }

  reset(vector: number): void {
    this.size = this.maxSize;
    this.isEnabled = false;
    this.isBroken = false;
    this.address.fill(0);
    this.vector = vector;
    this.lastAvail = 0;
    this.usedIdx = 0;
    this.decidedAt = 0;
  }

  /** Chains that wait; 0 also if the rings are nowhere. */
  pending(): number {
    const { size } = this;
    if (!this.isEnabled || this.isBroken) return 0;
    const avail = this.memory.readable(this.availGpa, 6 + 2 * size);
    if (avail === null) return this.fail();
    const count = (u16(avail, 2) - this.lastAvail) & 0xffff;
    return count > size ? this.fail() : count;
  }

  /** Takes the next chain into `chain`; false if none waits or the queue is broken. */
  pop(): boolean {
    if (this.pending() === 0) return false;
    const avail = this.memory.readable(this.availGpa + 4 + 2 * (this.lastAvail % this.size), 2);
    if (avail === null || !this.collect(u16(avail, 0))) {
      this.fail();
      return false;
    }
    this.lastAvail = (this.lastAvail + 1) & 0xffff;
    return true;
  }

  /** Gives a chain back, with how many bytes of it were written. */
  push(head: number, bytes: number): void {
    const { size, usedIdx } = this;
    const entry = this.memory.writable(this.usedGpa + 4 + 8 * (usedIdx % size), 8);
    if (entry === null) return void this.fail();
    setU32(entry, 0, head);
    setU32(entry, 4, bytes);
    const idx = this.memory.writable(this.usedGpa + 2, 2);
    if (idx === null) return void this.fail();
    this.usedIdx = (usedIdx + 1) & 0xffff;
    idx[0] = this.usedIdx & 0xff;
    idx[1] = this.usedIdx >> 8;
  }

  /** Asks to be told of the next chain: with EVENT_IDX the driver wants to know when. */
  askForNotification(): void {
    if (!this.eventIdx || !this.isEnabled || this.isBroken) return;
    const event = this.memory.writable(this.usedGpa + 4 + 8 * this.size, 2);
    if (event === null) return void this.fail();
    event[0] = this.lastAvail & 0xff;
    event[1] = this.lastAvail >> 8;
  }

  /** Whether the driver wants an interrupt for what was given back since the last question. */
  wantsInterrupt(): boolean {
    const { usedIdx, decidedAt, size } = this;
    this.decidedAt = usedIdx;
    if (usedIdx === decidedAt || this.isBroken) return false;
    if (!this.eventIdx) {
      const flags = this.memory.readable(this.availGpa, 2);
      return flags !== null && (u16(flags, 0) & AVAIL_F_NO_INTERRUPT) === 0;
    }
    const event = this.memory.readable(this.availGpa + 4 + 2 * size, 2);
    return event !== null && ((usedIdx - u16(event, 0) - 1) & 0xffff) < ((usedIdx - decidedAt) & 0xffff);
  }

  private get availGpa(): number {
    return this.address[3] * TWO_32 + this.address[2];
  }

  private get usedGpa(): number {
    return this.address[5] * TWO_32 + this.address[4];
  }

  private fail(): 0 {
    this.isBroken = true;
    return 0;
  }

  /** The chain's pieces; false if it is malformed. */
  private collect(head: number): boolean {
    const { chain, address } = this;
    chain.clear(head);
    return this.collectTable(address[1] * TWO_32 + address[0], this.size, head, true);
  }

  private collectTable(table: number, entries: number, first: number, outer: boolean): boolean {
    let index = first;
    // A chain has no more descriptors than its table: what goes on longer is a loop.
    for (let steps = 0; steps < entries; steps++) {
      if (index >= entries) return false;
      const desc = this.memory.readable(table + index * DESC_BYTES, DESC_BYTES);
      if (desc === null) return false;
      const gpa = u32(desc, 4) * TWO_32 + u32(desc, 0);
      const bytes = u32(desc, 8);
      const flags = u16(desc, 12);
      const next = u16(desc, 14);
      if (flags & DESC_F_INDIRECT) {
        // A table is the last of its chain, of whole descriptors, and there are none within one.
        if (!outer || !this.indirect || flags & DESC_F_NEXT || bytes === 0 || bytes % DESC_BYTES !== 0) return false;
        return this.collectTable(gpa, bytes / DESC_BYTES, 0, false);
      }
      if (!this.chain.add(gpa, bytes, (flags & DESC_F_WRITE) !== 0)) return false;
      if (this.chain.readableBytes + this.chain.writableBytes > MAX_CHAIN_BYTES) return false;
      if (!(flags & DESC_F_NEXT)) return true;
      index = next;
    }
    return false;
  }
}

function u16(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

function setU32(bytes: Uint8Array, at: number, value: number): void {
  for (let i = 0; i < 4; i++) bytes[at + i] = value >>> (8 * i);
}
