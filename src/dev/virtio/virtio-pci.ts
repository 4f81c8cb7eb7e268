/**
 * Virtio over PCI, without the legacy interface (virtio 1.2, 4.1). Everything is in BAR 0, MSI-X in BAR 1:
 *
 *     0000 common configuration    1000 interrupt status    2000 the device's configuration    3000 notifications, 4 bytes a queue
 *
 * The fifth capability is a window: BAR accesses through configuration space.
 */
import type { ApicBus } from '../apic-bus.ts';
import type { MmioDevice } from '../bus.ts';
import { MSIX_BAR_BYTES, MSIX_CAPABILITY, MSIX_PENDING, MsiX, NO_VECTOR } from '../pci/msix.ts';
import { COMMAND_INTX_OFF, PciFunction } from '../pci/pci-function.ts';
import { irqOfSlot, type PciHost } from '../pci/pci-host.ts';
import {
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_VERSION_1_HI,
  type VirtioDevice,
  type VirtioTransport,
} from './virtio-device.ts';
import type { VirtQueue } from './virtqueue.ts';

const VENDOR = 0x1af4;
const FIRST_DEVICE = 0x1040;
const BAR_BYTES = 0x4000;
const ISR = 0x1000;
const DEVICE_CONFIG = 0x2000;
const NOTIFY = 0x3000;
const NOTIFY_MULTIPLIER = 4;
const COMMON_BYTES = 0x3c;

const CAP_VENDOR = 0x09;
const CFG_COMMON = 1;
const CFG_NOTIFY = 2;
const CFG_ISR = 3;
const CFG_DEVICE = 4;
const CFG_PCI = 5;
/** Of a capability: bar, offset, length, and (of the window) data. */
const CAP_BAR = 4;
const CAP_OFFSET = 8;
const CAP_LENGTH = 12;
const CAP_DATA = 16;

const STATUS_DRIVER_OK = 4;
const STATUS_FEATURES_OK = 8;
const STATUS_NEEDS_RESET = 0x40;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

// Common configuration.
const DEVICE_FEATURE_SELECT = 0x00;
const DEVICE_FEATURE = 0x04;
const DRIVER_FEATURE_SELECT = 0x08;
const DRIVER_FEATURE = 0x0c;
const CONFIG_VECTOR = 0x10;
const NUM_QUEUES = 0x12;
const DEVICE_STATUS = 0x14;
const CONFIG_GENERATION = 0x15;
const QUEUE_SELECT = 0x16;
const QUEUE_SIZE = 0x18;
const QUEUE_VECTOR = 0x1a;
const QUEUE_ENABLE = 0x1c;
const QUEUE_NOTIFY_OFF = 0x1e;
const QUEUE_ADDRESSES = 0x20;
const QUEUE_ADDRESSES_END = 0x38;

export class VirtioPci extends PciFunction implements MmioDevice, VirtioTransport {
  deviceFeatureSelect = 0;
  driverFeatureSelect = 0;
  readonly driverFeatures = new Uint32Array(2);
  status = 0;
  queueSelect = 0;
  configVector = NO_VECTOR;
  configGeneration = 0;
  isr = 0;
  readonly msix: MsiX;
  readonly device: VirtioDevice;
  private readonly host: PciHost;
  private readonly slot: number;
  private readonly msixCapability: number;
  private readonly windowCapability: number;
  private readonly common = new DataView(new ArrayBuffer(0x40));

  /** Takes the slot; its BARs are at `gpa` and behind it, BAR_SPACE in all. */
  constructor(device: VirtioDevice, host: PciHost, slot: number, gpa: number, bus: ApicBus) {
    const { type, pciClass } = device.identity;
    super({
      vendor: VENDOR,
      device: FIRST_DEVICE + type,
      subsystem: FIRST_DEVICE + type,
      revision: 1,
      class: pciClass,
    });
    this.device = device;
    this.host = host;
    this.slot = slot;
    device.transport = this;
    this.msix = new MsiX(device.queues.length + 1, bus);
    this.addBar(0, BAR_BYTES, gpa, this);
    this.addBar(1, MSIX_BAR_BYTES, gpa + BAR_BYTES, this.msix);
    this.useIntx(irqOfSlot(slot));
    this.msixCapability = this.addCapability(MSIX_CAPABILITY, [
      this.msix.vectors - 1,
      0,
      ...le32(1), // table: BAR 1
      ...le32(1 | MSIX_PENDING),
    ]);
    this.mask[this.msixCapability + 3] = 0xc0;
    const structure = (kind: number, offset: number, length: number, more: readonly number[] = []): number =>
      this.addCapability(CAP_VENDOR, [16 + more.length, kind, 0, 0, 0, 0, ...le32(offset), ...le32(length), ...more]);
    structure(CFG_COMMON, 0, COMMON_BYTES);
    structure(CFG_ISR, ISR, 1);
    if (device.config.length > 0) structure(CFG_DEVICE, DEVICE_CONFIG, device.config.length);
    structure(CFG_NOTIFY, NOTIFY, device.queues.length * NOTIFY_MULTIPLIER, le32(NOTIFY_MULTIPLIER));
    this.windowCapability = structure(CFG_PCI, 0, 0, le32(0));
    this.mask.fill(0xff, this.windowCapability + CAP_BAR, this.windowCapability + CAP_BAR + 1);
    this.mask.fill(0xff, this.windowCapability + CAP_OFFSET, this.windowCapability + CAP_DATA + 4);
    this.keepConfig();
  }

  // ---- configuration space -----------------------------------------------------------------------------------------

  override readConfig(offset: number, bytes: number): number {
    if (offset === this.windowCapability + CAP_DATA) this.useWindow(false);
    return super.readConfig(offset, bytes);
  }

  protected override configWritten(offset: number, bytes: number): void {
    const { msixCapability: msix, windowCapability: window } = this;
    if (offset < msix + 4 && offset + bytes > msix + 2) this.msix.setControl(this.config[msix + 3] << 8);
    if (offset === window + CAP_DATA) this.useWindow(true);
    this.updateIntx();
  }

  /** Does the BAR access that the window describes. */
  private useWindow(write: boolean): void {
    const view = new DataView(this.config.buffer, this.windowCapability);
    const offset = view.getUint32(CAP_OFFSET, true);
    const bytes = view.getUint32(CAP_LENGTH, true);
    if ((bytes !== 1 && bytes !== 2 && bytes !== 4) || offset % bytes !== 0) return;
    const target = this.barDevice(view.getUint8(CAP_BAR), offset, bytes);
    if (target === null) return;
    if (write) target.mmioWrite(offset, bytes, (view.getUint32(CAP_DATA, true) & (2 ** (8 * bytes) - 1)) >>> 0);
    else view.setUint32(CAP_DATA, target.mmioRead(offset, bytes), true);
  }

  // ---- BAR 0 -------------------------------------------------------------------------------------------------------

  mmioRead(offset: number, bytes: number): number {
    if (offset < ISR) return offset + bytes <= COMMON_BYTES ? this.readCommon(offset, bytes) : 0;
    if (offset === ISR) return this.takeIsr();
    if (offset < DEVICE_CONFIG || offset >= NOTIFY) return 0;
    this.device.refreshConfig();
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = (value << 8) | (this.device.config[offset - DEVICE_CONFIG + i] ?? 0);
    return value;
  }

  mmioWrite(offset: number, bytes: number, value: number): void {
    if (offset >= NOTIFY) {
      const index = (offset - NOTIFY) / NOTIFY_MULTIPLIER;
      if (Number.isInteger(index)) this.device.notify(index);
    } else if (offset >= DEVICE_CONFIG) {
      for (let i = 0; i < bytes; i++) this.writeDeviceConfig(offset - DEVICE_CONFIG + i, (value >>> (8 * i)) & 0xff);
    } else if (offset < ISR) {
      this.writeCommon(offset, bytes, value);
    }
  }

  private writeDeviceConfig(offset: number, value: number): void {
    if (offset < this.device.config.length) this.device.writeConfig(offset, value);
  }

  private readCommon(offset: number, bytes: number): number {
    const { common } = this;
    const queue = this.selected();
    common.setUint32(DEVICE_FEATURE_SELECT, this.deviceFeatureSelect, true);
    common.setUint32(DEVICE_FEATURE, this.offered(this.deviceFeatureSelect), true);
    common.setUint32(DRIVER_FEATURE_SELECT, this.driverFeatureSelect, true);
    common.setUint32(DRIVER_FEATURE, this.driverFeatures[this.driverFeatureSelect] ?? 0, true);
    common.setUint16(CONFIG_VECTOR, this.configVector, true);
    common.setUint16(NUM_QUEUES, this.device.queues.length, true);
    common.setUint8(DEVICE_STATUS, this.status);
    common.setUint8(CONFIG_GENERATION, this.configGeneration);
    common.setUint16(QUEUE_SELECT, this.queueSelect, true);
    common.setUint16(QUEUE_SIZE, queue?.size ?? 0, true);
    common.setUint16(QUEUE_VECTOR, queue?.vector ?? NO_VECTOR, true);
    common.setUint16(QUEUE_ENABLE, queue?.isEnabled === true ? 1 : 0, true);
    common.setUint16(QUEUE_NOTIFY_OFF, this.queueSelect, true);
    for (let i = 0; i < 6; i++) common.setUint32(QUEUE_ADDRESSES + 4 * i, queue?.address[i] ?? 0, true);
    if (bytes === 1) return common.getUint8(offset);
    return bytes === 2 ? common.getUint16(offset, true) : common.getUint32(offset, true);
  }

  /** Fields are written whole; the addresses by their halves. */
  private writeCommon(offset: number, bytes: number, value: number): void {
    if (offset >= QUEUE_ADDRESSES && offset < QUEUE_ADDRESSES_END) {
      if (bytes === 4 && offset % 4 === 0) this.setQueueAddress((offset - QUEUE_ADDRESSES) >> 2, value);
      return;
    }
    switch (offset) {
      case DEVICE_FEATURE_SELECT:
        this.deviceFeatureSelect = value >>> 0;
        break;
      case DRIVER_FEATURE_SELECT:
        this.driverFeatureSelect = value >>> 0;
        break;
      case DRIVER_FEATURE:
        // Settled once FEATURES_OK is.
        if (this.driverFeatureSelect < 2 && !(this.status & STATUS_FEATURES_OK))
          this.driverFeatures[this.driverFeatureSelect] = value;
        break;
      case CONFIG_VECTOR:
        this.configVector = this.validVector(value);
        break;
      case DEVICE_STATUS:
        this.writeStatus(value & 0xff);
        break;
      case QUEUE_SELECT:
        this.queueSelect = value & 0xffff;
        break;
      default:
        this.writeQueue(offset, value & 0xffff);
    }
  }

  private writeQueue(offset: number, value: number): void {
    const queue = this.selected();
    if (queue === null) return;
    if (offset === QUEUE_VECTOR) queue.vector = this.validVector(value);
    else if (queue.isEnabled) return;
    // A power of two, up to ours.
    else if (offset === QUEUE_SIZE && value > 0 && value <= queue.maxSize && (value & (value - 1)) === 0)
      queue.size = value;
    else if (offset === QUEUE_ENABLE && value === 1) queue.isEnabled = true;
  }

  private setQueueAddress(word: number, value: number): void {
    const queue = this.selected();
    if (queue !== null && !queue.isEnabled) queue.address[word] = value;
  }

  private selected(): VirtQueue | null {
    return this.device.queues[this.queueSelect] ?? null;
  }

  private validVector(value: number): number {
    return (value & 0xffff) < this.msix.vectors ? value & 0xffff : NO_VECTOR;
  }

  // ---- features and status -----------------------------------------------------------------------------------------

  private offered(word: number): number {
    if (word === 0) return (this.device.identity.features | F_INDIRECT_DESC | F_EVENT_IDX) >>> 0;
    return word === 1 ? F_VERSION_1_HI : 0;
  }

  private writeStatus(value: number): void {
    if (value === 0) return this.resetDevice();
    let status = value | (this.status & STATUS_NEEDS_RESET);
    if (status & STATUS_FEATURES_OK && !(this.status & STATUS_FEATURES_OK) && !this.agrees())
      status &= ~STATUS_FEATURES_OK;
    const starts = status & STATUS_DRIVER_OK && status & STATUS_FEATURES_OK && !(this.status & STATUS_DRIVER_OK);
    this.status = status;
    if (starts) this.device.start(this.driverFeatures[0] | 0);
  }

  /** The driver wants nothing that isn't there, and the interface of version 1. */
  private agrees(): boolean {
    const [lo, hi] = this.driverFeatures;
    return hi === F_VERSION_1_HI && (lo & ~this.offered(0)) === 0;
  }

  /** RST#: configuration space too. */
  powerOn(): void {
    this.deviceFeatureSelect = 0;
    this.driverFeatureSelect = 0;
    this.queueSelect = 0;
    this.msix.reset();
    this.resetConfig();
    this.resetDevice();
  }

  private resetDevice(): void {
    this.status = 0;
    this.driverFeatures.fill(0);
    this.configVector = NO_VECTOR;
    this.isr = 0;
    this.device.reset();
    this.updateIntx();
  }

  // ---- interrupts --------------------------------------------------------------------------------------------------

  interrupt(queue: VirtQueue): void {
    this.raise(ISR_QUEUE, queue.vector);
  }

  configChanged(): void {
    this.configGeneration = (this.configGeneration + 1) & 0xff;
    if (this.status & STATUS_DRIVER_OK) this.raise(ISR_CONFIG, this.configVector);
  }

  needsReset(): void {
    this.status |= STATUS_NEEDS_RESET;
    this.raise(ISR_CONFIG, this.configVector);
  }

  private raise(cause: number, vector: number): void {
    if (this.msix.isEnabled) return this.msix.notify(vector);
    this.isr |= cause;
    this.updateIntx();
  }

  private takeIsr(): number {
    const { isr } = this;
    this.isr = 0;
    this.updateIntx();
    return isr;
  }

  private updateIntx(): void {
    const level = this.isr !== 0 && !this.msix.isEnabled;
    this.showIntx(level);
    this.host.setIntx(this.slot, level && !(this.command & COMMAND_INTX_OFF));
  }
}

/** Address space of a device's BARs. */
export const BAR_SPACE = 0x8000;

function le32(value: number): number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
}
