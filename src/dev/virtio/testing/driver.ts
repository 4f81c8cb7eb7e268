/** A virtio driver for tests: finds the device through configuration space, as a system does, and fills its rings. */
import { ApicBus } from '../../apic-bus.ts';
import { PortBus } from '../../bus.ts';
import { VirtualClock } from '../../clock.ts';
import { LocalApic } from '../../local-apic.ts';
import { PCI_PORT, PCI_PORTS, PCI_WINDOW_GPA, PciHost } from '../../pci/pci-host.ts';
import { PowerState } from '../../power.ts';
import { InitLine } from '../../reset-ports.ts';
import { Tsc } from '../../tsc.ts';
import type { VirtioDevice, VirtioHost } from '../virtio-device.ts';
import { VirtioPci } from '../virtio-pci.ts';
import { FlatGuestMemory } from './flat-memory.ts';

export const SLOT = 3;
const MSIX_VECTOR = 0x41;
const QUEUE_SIZE = 16;
/** Where the rings of queue n lie, and behind them room for buffers. */
const RINGS_GPA = 0x10000;
const RINGS_BYTES = 0x2000;
export const BUFFERS_GPA = 0x40000;

export interface Piece {
  readonly gpa: number;
  readonly bytes: number;
  readonly write?: boolean;
}

export class TestDriver<Device extends VirtioDevice = VirtioDevice> {
  readonly memory: FlatGuestMemory;
  readonly clock = new VirtualClock();
  readonly ports = new PortBus();
  readonly bus = new ApicBus();
  readonly apic: LocalApic;
  readonly host: PciHost;
  readonly pins: [pin: number, level: boolean][] = [];
  /** The wires to the PICs. */
  readonly picPins: [irq: number, level: boolean][] = [];
  readonly device: Device;
  readonly pci: VirtioPci;
  eventIdx = false;
  private readonly avail = new Map<number, number>();
  private readonly used = new Map<number, number>();
  private nextDescriptor = 0;

  constructor(make: (host: VirtioHost) => Device, memoryBytes = 2 ** 20) {
    this.memory = new FlatGuestMemory(memoryBytes);
    this.apic = new LocalApic({ id: 0, clock: this.clock, tsc: new Tsc(this.clock), bus: this.bus, boot: true });
    const ioapic = { setPin: (pin: number, level: boolean) => void this.pins.push([pin, level]) };
    const pic = { setPin: (irq: number, level: boolean) => void this.picPins.push([irq, level]) };
    this.host = new PciHost(new PowerState(), new InitLine(new ApicBus()), ioapic, pic);
    this.ports.claim(PCI_PORT, PCI_PORTS, this.host, 4);
    this.device = make({ memory: this.memory, clock: this.clock });
    this.pci = new VirtioPci(this.device, this.host, SLOT, PCI_WINDOW_GPA + 0x100000, this.bus);
    this.host.functions[SLOT] = this.pci;
    // Software enable: spurious vector register.
    this.apic.mmioWrite(0xf0, 4, 0x1ff);
  }

  // ---- registers ---------------------------------------------------------------------------------------------------

  readConfig(offset: number, bytes: number): number {
    this.ports.write(PCI_PORT, 4, (0x80000000 | (SLOT << 11) | (offset & 0xfc)) >>> 0);
    return this.ports.read(0xcfc + (offset & 3), bytes);
  }

  writeConfig(offset: number, bytes: number, value: number): void {
    this.ports.write(PCI_PORT, 4, (0x80000000 | (SLOT << 11) | (offset & 0xfc)) >>> 0);
    this.ports.write(0xcfc + (offset & 3), bytes, value);
  }

  read(offset: number, bytes: number, bar = 0): number {
    return this.host.mmioRead((this.readConfig(0x10 + 4 * bar, 4) & ~15) - (PCI_WINDOW_GPA | 0) + offset, bytes) >>> 0;
  }

  write(offset: number, bytes: number, value: number, bar = 0): void {
    this.host.mmioWrite((this.readConfig(0x10 + 4 * bar, 4) & ~15) - (PCI_WINDOW_GPA | 0) + offset, bytes, value);
  }

  /** Offsets of the capabilities with an ID. */
  capabilities(id: number): number[] {
    const found: number[] = [];
    for (let at = this.readConfig(0x34, 1), steps = 0; at !== 0 && steps < 48; at = this.readConfig(at + 1, 1), steps++)
      if (this.readConfig(at, 1) === id) found.push(at);
    return found;
  }

  get status(): number {
    return this.read(0x14, 1);
  }

  // ---- set-up ------------------------------------------------------------------------------------------------------

  /** Features lo; the whole way to DRIVER_OK. False if the device doesn't agree. */
  start(features = 0, options: { msix?: boolean; featuresHi?: number } = {}): boolean {
    const { msix = true, featuresHi = 1 } = options;
    this.writeConfig(0x04, 2, 6);
    this.write(0x14, 1, 0);
    this.write(0x14, 1, 3);
    this.write(0x08, 4, 0);
    this.write(0x0c, 4, features >>> 0);
    this.write(0x08, 4, 1);
    this.write(0x0c, 4, featuresHi);
    this.write(0x14, 1, 0x0b);
    if (!(this.status & 8)) return false;
    this.eventIdx = (features & (1 << 29)) !== 0;
    if (msix) this.startMsix();
    for (let i = 0; i < this.read(0x12, 2); i++) this.startQueue(i, msix ? i + 1 : 0xffff);
    this.write(0x14, 1, 0x0f);
    return true;
  }

  private startMsix(): void {
    const [capability] = this.capabilities(0x11);
    for (let i = 0; i < this.pci.msix.vectors; i++) {
      for (const [word, value] of [0xfee00000, 0, MSIX_VECTOR + i, 0].entries())
        this.write(i * 16 + word * 4, 4, value, 1);
    }
    this.writeConfig(capability + 2, 2, 0x8000);
    this.write(0x10, 2, 0);
  }

  private startQueue(index: number, vector: number): void {
    this.write(0x16, 2, index);
    this.write(0x18, 2, QUEUE_SIZE);
    this.write(0x1a, 2, vector);
    const rings = this.rings(index);
    this.memory.bytes.fill(0, rings.desc, rings.desc + RINGS_BYTES);
    for (const [i, gpa] of [rings.desc, 0, rings.avail, 0, rings.used, 0].entries()) this.write(0x20 + 4 * i, 4, gpa);
    this.write(0x1c, 2, 1);
    this.avail.set(index, 0);
    this.used.set(index, 0);
  }

  rings(index: number): { desc: number; avail: number; used: number } {
    const desc = RINGS_GPA + index * RINGS_BYTES;
    return { desc, avail: desc + 0x800, used: desc + 0x1000 };
  }

  // ---- chains ------------------------------------------------------------------------------------------------------

  setDescriptor(table: number, index: number, piece: Piece, next: number | null, flags = 0): void {
    const { view } = this.memory;
    const at = table + index * 16;
    view.setUint32(at, piece.gpa % 4294967296, true);
    view.setUint32(at + 4, Math.floor(piece.gpa / 4294967296), true);
    view.setUint32(at + 8, piece.bytes, true);
    view.setUint16(at + 12, flags | (piece.write === true ? 2 : 0) | (next === null ? 0 : 1), true);
    view.setUint16(at + 14, next ?? 0, true);
  }

  /** Makes a chain available, without a notification; its head. */
  add(queue: number, pieces: readonly Piece[]): number {
    const { desc } = this.rings(queue);
    const head = this.nextDescriptor % QUEUE_SIZE;
    for (const [i, piece] of pieces.entries()) {
      const index = (head + i) % QUEUE_SIZE;
      this.setDescriptor(desc, index, piece, i + 1 < pieces.length ? (head + i + 1) % QUEUE_SIZE : null);
    }
    this.nextDescriptor += pieces.length;
    this.makeAvailable(queue, head);
    return head;
  }

  makeAvailable(queue: number, head: number): void {
    const { view } = this.memory;
    const { avail } = this.rings(queue);
    const idx = this.avail.get(queue) ?? 0;
    view.setUint16(avail + 4 + 2 * (idx % QUEUE_SIZE), head, true);
    this.avail.set(queue, (idx + 1) & 0xffff);
    view.setUint16(avail + 2, (idx + 1) & 0xffff, true);
  }

  notify(queue: number): void {
    this.write(0x3000 + 4 * queue, 2, queue);
  }

  /** What has been given back since the last look: heads and lengths. */
  takeUsed(queue: number): { head: number; bytes: number }[] {
    const { view } = this.memory;
    const { used } = this.rings(queue);
    const taken: { head: number; bytes: number }[] = [];
    let idx = this.used.get(queue) ?? 0;
    for (; idx !== view.getUint16(used + 2, true); idx = (idx + 1) & 0xffff) {
      const at = used + 4 + 8 * (idx % QUEUE_SIZE);
      taken.push({ head: view.getUint32(at, true), bytes: view.getUint32(at + 4, true) });
    }
    this.used.set(queue, idx);
    return taken;
  }

  /** A chain there and back. Bytes that the device has written, or -1 if it didn't give it back. */
  request(queue: number, pieces: readonly Piece[]): number {
    const head = this.add(queue, pieces);
    this.notify(queue);
    const [used] = this.takeUsed(queue);
    return used !== undefined && used.head === head ? used.bytes : -1;
  }

  /** The vector that the APIC would deliver now, minus the first one of the device: 0 configuration, n + 1 queue n; or -1. */
  takeInterrupt(): number {
    if (!this.apic.interruptPending()) return -1;
    const vector = this.apic.acknowledge();
    this.apic.mmioWrite(0xb0, 4, 0);
    return vector - MSIX_VECTOR;
  }
}
