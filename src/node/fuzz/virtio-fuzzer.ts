/**
 * A malicious guest against the PCI bus and the virtio devices: registers written at random, rings full of descriptors that loop, overlap
 * the rings, leave memory or lie about their lengths. Nothing may throw, nothing outside the guest's memory may be read or written,
 * and every notification has to come to an end within its bound of work.
 */
import type { Prng } from '../../base/prng.ts';
import { Board } from '../../dev/board.ts';
import type { GuestMemory } from '../../dev/guest-memory.ts';
import { MAX_VIEW_BYTES } from '../../dev/guest-memory.ts';
import { UserNet } from '../../dev/net/user-net.ts';
import type { FileInfo, FolderPort } from '../../dev/p9/folder-port.ts';
import { PCI_WINDOW_GPA } from '../../dev/pci/pci-host.ts';
import { MemoryDisk, SnapshotDisk } from '../../dev/virtio/memory-disk.ts';
import { Virtio9p } from '../../dev/virtio/virtio-9p.ts';
import { VirtioBalloon } from '../../dev/virtio/virtio-balloon.ts';
import { VirtioBlk } from '../../dev/virtio/virtio-blk.ts';
import { VirtioConsole } from '../../dev/virtio/virtio-console.ts';
import type { VirtioDevice, VirtioHost } from '../../dev/virtio/virtio-device.ts';
import { VirtioNet } from '../../dev/virtio/virtio-net.ts';
import { VirtioRng } from '../../dev/virtio/virtio-rng.ts';
import type { Fuzzer } from './harness.ts';

const MEMORY_BYTES = 2 ** 18;
const GUARD_BYTES = 4096;
const GUARD = 0xa5;
const STEPS = 300;
/** Bytes of views that one step may ask for: a turn's worth several times over, for rings and data. */
const MOST_BYTES_A_STEP = 2 ** 30;
const RINGS = [0x1000, 0x2000, 0x3000] as const;

/** The guest's memory between two guards. */
class GuardedMemory implements GuestMemory {
  bytesSeen = 0;
  private readonly all = new Uint8Array(MEMORY_BYTES + 2 * GUARD_BYTES).fill(GUARD);
  readonly bytes = this.all.subarray(GUARD_BYTES, GUARD_BYTES + MEMORY_BYTES);

  constructor() {
    this.bytes.fill(0);
  }

  readable(gpa: number, bytes: number): Uint8Array | null {
    if (!(gpa >= 0 && bytes >= 0 && gpa + bytes <= MEMORY_BYTES)) return null;
    this.bytesSeen += bytes;
    return this.bytes.subarray(gpa, gpa + bytes);
  }

  writable(gpa: number, bytes: number): Uint8Array | null {
    if (bytes > MAX_VIEW_BYTES) throw new Error(`a view of ${bytes} bytes is asked for`);
    return this.readable(gpa, bytes);
  }

  isWritable(gpa: number, bytes: number): boolean {
    return this.readable(gpa, bytes) !== null;
  }

  discard(gpa: number, bytes: number): void {
    this.readable(gpa, bytes)?.fill(0);
  }

  get isIntact(): boolean {
    const { all } = this;
    for (let i = 0; i < GUARD_BYTES; i++) {
      if (all[i] !== GUARD || all[GUARD_BYTES + MEMORY_BYTES + i] !== GUARD) return false;
    }
    return true;
  }
}

const NO_NETWORK = { connect: () => null, onActivity: () => {}, close: () => {} };

const INFO: FileInfo = {
  mode: 0o100644,
  inode: 1,
  uid: 0,
  gid: 0,
  links: 1,
  bytes: 9,
  blocks: 1,
  accessedMs: 0,
  modifiedMs: 0,
  changedMs: 0,
};

/** A folder in which every name is there. */
const ANY_FOLDER: FolderPort = {
  isReadonly: false,
  root: () => 1,
  walk: () => 1,
  copy: () => 1,
  release: () => {},
  stat: () => INFO,
  open: () => 0,
  read: (_node, _at, into) => into.fill(1).length,
  write: (_node, _at, from) => from.length,
  list: () => Array.from({ length: 9 }, (_, i) => ({ ...INFO, name: 'x'.repeat(i * 30) })),
  readlink: () => '../link',
  create: () => 1,
  mkdir: () => 0,
  unlink: () => 0,
  rename: () => 0,
  truncate: () => 0,
  sync: () => 0,
};

const DEVICES: readonly (readonly [name: string, make: (host: VirtioHost) => VirtioDevice])[] = [
  ['blk', (host) => new VirtioBlk(host, new SnapshotDisk(new MemoryDisk(new Uint8Array(65536).fill(7))), 'disk')],
  ['rng', (host) => new VirtioRng(host, 1)],
  ['console', (host) => new VirtioConsole(host, { writeByte: () => {} })],
  ['net', (host) => new VirtioNet(host, new UserNet(NO_NETWORK, host.clock))],
  ['9p', (host) => new Virtio9p(host, ANY_FOLDER, 'host')],
  ['balloon', (host) => new VirtioBalloon(host)],
];

export function virtioFuzzer(): Fuzzer {
  return {
    name: 'virtio',
    run(prng) {
      const [name, make] = prng.pick(DEVICES);
      const guest = new MaliciousGuest(prng, make);
      for (let i = 0; i < STEPS; i++) guest.step();
      return `${name}${guest.isBroken ? ', needs reset' : ''}`;
    },
  };
}

class MaliciousGuest {
  private readonly prng: Prng;
  private readonly memory = new GuardedMemory();
  private readonly board: Board;
  private readonly device: VirtioDevice;
  private avail = 0;

  constructor(prng: Prng, make: (host: VirtioHost) => VirtioDevice) {
    this.prng = prng;
    this.board = new Board({
      ramBytes: 2 ** 21,
      cpus: 1,
      epochS: 0,
      console: { writeByte: () => {} },
      memory: { writeGuest: () => true },
    });
    this.device = make({ memory: this.memory, clock: this.board.clock });
    this.board.addVirtio(this.device);
    if (prng.chance(0.9)) this.start();
  }

  get isBroken(): boolean {
    return this.device.queues.some((queue) => queue.isBroken);
  }

  step(): void {
    const { prng, memory, board } = this;
    memory.bytesSeen = 0;
    const kind = prng.int(100);
    if (kind < 45) this.submit();
    else if (kind < 60) this.register(prng.int(0x40), prng.pick([1, 2, 4]), this.value());
    else if (kind < 70) this.configuration();
    else if (kind < 80) this.register(prng.int(0x8000), prng.pick([1, 2, 4]), this.value());
    else if (kind < 88) board.mmio.read(this.bar() + prng.int(0x8000), prng.pick([1, 2, 4, 8]));
    else if (kind < 94) board.clock.advanceTo(board.clock.now + prng.int(5000));
    else if (kind < 97) this.scribble();
    else this.start();
    if (memory.bytesSeen > MOST_BYTES_A_STEP) throw new Error(`a step looked at ${memory.bytesSeen} bytes`);
    if (!memory.isIntact) throw new Error("something behind the guest's memory has changed");
  }

  /** As a driver does it, so that what follows reaches the device. */
  private start(): void {
    const { prng, memory } = this;
    const features = prng.pick([0, 1 << 28, 1 << 29, 3 << 28]) >>> 0;
    this.config(0x04, 2, 6);
    this.config(0x10, 4, PCI_WINDOW_GPA + 0x100000);
    this.config(0x14, 4, PCI_WINDOW_GPA + 0x104000);
    for (const [offset, bytes, value] of [
      [0x14, 1, 0],
      [0x14, 1, 3],
      [0x08, 4, 0],
      [0x0c, 4, features],
      [0x08, 4, 1],
      [0x0c, 4, 1],
      [0x14, 1, 11],
    ] as const)
      this.register(offset, bytes, value);
    for (let queue = 0; queue < this.device.queues.length; queue++) {
      this.register(0x16, 2, queue);
      this.register(0x18, 2, prng.pick([1, 2, 16, 64, 256]));
      for (const [i, gpa] of RINGS.entries()) this.register(0x20 + 8 * i, 4, gpa + queue * 0x4000);
      this.register(0x1c, 2, 1);
    }
    memory.bytes.fill(0, 0x1000, 0x10000);
    this.avail = 0;
    this.register(0x14, 1, 15);
  }

  /** Some descriptors, some of them right, and a notification. */
  private submit(): void {
    const { prng } = this;
    const queue = prng.int(this.device.queues.length);
    const { size } = this.device.queues[queue];
    const [desc, avail] = RINGS.map((gpa) => gpa + queue * 0x4000);
    const count = 1 + prng.int(prng.chance(0.9) ? 6 : size);
    for (let i = 0; i < count; i++) this.descriptor(desc + (i % 64) * 16, i, count, size);
    this.put(0x20000, prng.pick([0, 1, 4, 8, this.value()]), 4);
    this.put(0x20004, prng.pick([100, 104, 104, 110, 12, 116, 40, 24, 22, 8, 120, prng.int(256)]), 1);
    this.put(0x20007, prng.int(3), 4);
    if (prng.chance(0.5)) this.put(0x2000b, prng.int(70000), 4);
    else this.put(0x20008, prng.pick([0, 3, 127, this.value()]), 4);
    this.put(avail + 4 + 2 * (this.avail % size), prng.chance(0.9) ? 0 : prng.int(65536), 2);
    this.avail += prng.chance(0.95) ? 1 : prng.int(65536);
    this.put(avail + 2, this.avail, 2);
    this.register(0x3000 + 4 * queue, 2, queue);
  }

  private descriptor(at: number, index: number, count: number, size: number): void {
    const { prng } = this;
    const isLast = index === count - 1;
    const gpa =
      index === 0 && prng.chance(0.7)
        ? 0x20000
        : prng.pick([0x20000 + prng.int(0x10000), 0x1000 + prng.int(0x4000), this.value()]);
    this.put(at, gpa, 4);
    this.put(at + 4, prng.chance(0.97) ? 0 : this.value(), 4);
    this.put(
      at + 8,
      index === 0 && prng.chance(0.7) ? 16 : prng.pick([1, 16, 512, 513, 4096, prng.int(0x20000), this.value()]),
      4,
    );
    const write = index === 0 ? 0 : prng.chance(0.5) ? 2 : 0;
    const flags = (isLast ? 0 : 1) | (isLast && prng.chance(0.8) ? 2 : write) | (prng.chance(0.05) ? 4 : 0);
    this.put(at + 12, prng.chance(0.95) ? flags : prng.int(65536), 2);
    this.put(at + 14, prng.chance(0.95) ? index + 1 : prng.int(size + 2), 2);
  }

  private configuration(): void {
    const { prng, board } = this;
    const slot = prng.pick([0, 1, 1, 1, 2, 31]);
    const address = prng.chance(0.9) ? (0x80000000 | (slot << 11) | (prng.int(64) << 2)) >>> 0 : this.value();
    board.ports.write(0xcf8, 4, address);
    const port = 0xcfc + prng.int(4);
    if (prng.chance(0.5)) board.ports.write(port, prng.pick([1, 2, 4]), this.value());
    else board.ports.read(port, prng.pick([1, 2, 4]));
  }

  /** Anywhere, the rings included. */
  private scribble(): void {
    const { prng, memory } = this;
    const at = prng.chance(0.7) ? 0x1000 + prng.int(0x4000) : prng.int(MEMORY_BYTES);
    for (let i = 0; i < 16; i++) memory.bytes[(at + i) % MEMORY_BYTES] = prng.int(256);
  }

  private value(): number {
    const { prng } = this;
    return prng.pick([
      0,
      1,
      2,
      0xffffffff,
      0x80000000,
      0x7fffffff,
      MEMORY_BYTES - 8,
      prng.int(256),
      prng.int(65536),
      prng.next(),
    ]);
  }

  private put(at: number, value: number, bytes: number): void {
    for (let i = 0; i < bytes; i++) this.memory.bytes[at + i] = value >>> (8 * i);
  }

  private bar(): number {
    return PCI_WINDOW_GPA + 0x100000;
  }

  private register(offset: number, bytes: number, value: number): void {
    this.board.mmio.write(this.bar() + offset, bytes, value);
  }

  private config(offset: number, bytes: number, value: number): void {
    this.board.ports.write(0xcf8, 4, 0x80000800 | offset);
    this.board.ports.write(0xcfc, bytes, value);
  }
}
