/**
 * A PCI function's configuration space, type 0: 256 bytes, a mask that says which bits the guest may write, memory BARs of 32 bits,
 * a chain of capabilities.
 *
 *     00 vendor, device   04 command, status   08 revision, class   0c header   10 BARs   2c subsystem   34 capabilities   3c interrupt
 *
 * BARs have addresses from the start, as after firmware, but don't decode before the guest sets Memory Space in the command.
 */
import type { MmioDevice } from '../bus.ts';

export const CONFIG_BYTES = 256;
const COMMAND = 0x04;
const STATUS = 0x06;
const BAR0 = 0x10;
const BARS = 6;
const CAPABILITIES = 0x34;
const FIRST_CAPABILITY = 0x40;

export const COMMAND_MEMORY = 1 << 1;
export const COMMAND_MASTER = 1 << 2;
export const COMMAND_INTX_OFF = 1 << 10;
const STATUS_INTX = 1 << 3;
const STATUS_CAPABILITIES = 1 << 4;

export interface PciIdentity {
  readonly vendor: number;
  readonly device: number;
  readonly subsystem: number;
  readonly revision: number;
  /** Class, subclass, interface: 24 bits. */
  readonly class: number;
}

interface Bar {
  readonly index: number;
  readonly bytes: number;
  readonly device: MmioDevice;
}

export class PciFunction {
  readonly config = new Uint8Array(CONFIG_BYTES);
  /** Bits of `config` that a write changes. */
  protected readonly mask = new Uint8Array(CONFIG_BYTES);
  private readonly view = new DataView(this.config.buffer);
  private readonly atPowerOn = new Uint8Array(CONFIG_BYTES);
  private readonly bars: Bar[] = [];
  private capabilityEnd = FIRST_CAPABILITY;
  private lastCapability = CAPABILITIES;

  constructor(identity: PciIdentity) {
    const { view } = this;
    view.setUint16(0x00, identity.vendor, true);
    view.setUint16(0x02, identity.device, true);
    view.setUint8(0x08, identity.revision);
    view.setUint8(0x09, identity.class & 0xff);
    view.setUint16(0x0a, identity.class >>> 8, true);
    view.setUint16(0x2c, identity.vendor, true);
    view.setUint16(0x2e, identity.subsystem, true);
    this.mask.fill(0xff, 0x3c, 0x3d); // the interrupt line is a note of the firmware for the system
  }

  get command(): number {
    return this.view.getUint16(COMMAND, true);
  }

  /** Memory of `bytes`, a power of two of at least 16, at `gpa` for the beginning. */
  addBar(index: number, bytes: number, gpa: number, device: MmioDevice): void {
    const at = BAR0 + index * 4;
    this.view.setUint32(at, gpa, true);
    new DataView(this.mask.buffer).setUint32(at, -bytes >>> 0, true);
    this.mask[COMMAND] |= COMMAND_MEMORY | COMMAND_MASTER;
    this.bars.push({ index, bytes, device });
  }

  /** Appends a capability; `body` follows its ID and link. Returns its offset. */
  addCapability(id: number, body: readonly number[]): number {
    const at = this.capabilityEnd;
    const end = (at + 2 + body.length + 3) & ~3;
    if (end > CONFIG_BYTES) throw new Error('no room for a capability');
    this.config[at] = id;
    this.config.set(body, at + 2);
    this.config[this.lastCapability] = at;
    this.lastCapability = at + 1;
    this.capabilityEnd = end;
    this.config[STATUS] |= STATUS_CAPABILITIES;
    return at;
  }

  /** It is complete: `resetConfig` comes back to what it is now. */
  protected keepConfig(): void {
    this.atPowerOn.set(this.config);
  }

  protected resetConfig(): void {
    this.config.set(this.atPowerOn);
  }

  /** The function drives INTA (pin 1); the firmware has noted its interrupt at the PICs. */
  useIntx(irq: number): void {
    this.config[0x3c] = irq;
    this.config[0x3d] = 1;
    this.mask[COMMAND + 1] |= COMMAND_INTX_OFF >> 8;
  }

  /** What the status register says of the interrupt, whether or not it is let out. */
  showIntx(level: boolean): void {
    if (level) this.config[STATUS] |= STATUS_INTX;
    else this.config[STATUS] &= ~STATUS_INTX;
  }

  /** `bytes` is 1, 2 or 4; the access doesn't leave an aligned word of four. */
  readConfig(offset: number, bytes: number): number {
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = (value << 8) | this.config[offset + i];
    return value >>> 0;
  }

  writeConfig(offset: number, bytes: number, value: number): void {
    for (let i = 0; i < bytes; i++) {
      const mask = this.mask[offset + i];
      this.config[offset + i] = (this.config[offset + i] & ~mask) | ((value >>> (8 * i)) & mask);
    }
    this.configWritten(offset, bytes);
  }

  /** After a write of the guest. */
  protected configWritten(_offset: number, _bytes: number): void {}

  /** The device behind a BAR and the offset in it, or null: nothing of this function is at the address. */
  decode(gpa: number): MmioDevice | null {
    if (!(this.command & COMMAND_MEMORY)) return null;
    for (const { index, bytes, device } of this.bars) {
      const base = this.barBase(index);
      if (gpa >= base && gpa < base + bytes) {
        this.decodedOffset = gpa - base;
        return device;
      }
    }
    return null;
  }

  /** Where in its range the last `decode` has hit. */
  decodedOffset = 0;

  /** A BAR's device, if an access of `bytes` at `offset` lies in it. */
  protected barDevice(index: number, offset: number, bytes: number): MmioDevice | null {
    const bar = this.bars.find((one) => one.index === index);
    return bar !== undefined && offset >= 0 && offset + bytes <= bar.bytes ? bar.device : null;
  }

  private barBase(index: number): number {
    return (this.view.getUint32(BAR0 + index * 4, true) & ~15) >>> 0;
  }
}

if (BAR0 + BARS * 4 > 0x2c) throw new Error('the BARs reach into the subsystem');
