/**
 * QEMU's firmware configuration, as far as guests without firmware ask it: a 16-bit selector at port 0x510, the selected item byte
 * by byte at port 0x511 (zeros after its end). Claims 2 ports, up to 2 bytes wide.
 */
import type { PortDevice } from './bus.ts';

export const FW_CFG_PORT = 0x510;
export const FW_CFG_PORTS = 2;
export const FW_CFG_SIGNATURE = 0x00;
export const FW_CFG_ID = 0x01;
export const FW_CFG_RAM_BYTES = 0x03;
export const FW_CFG_NOGRAPHIC = 0x04;
export const FW_CFG_CPUS = 0x05;
export const FW_CFG_MAX_CPUS = 0x0f;
export const FW_CFG_FILES = 0x19;

const NO_BYTES = new Uint8Array(0);

export class FwCfg implements PortDevice {
  selector = 0;
  offset = 0;
  private readonly items = new Map<number, Uint8Array>();

  constructor(ramBytes: number, cpus: number, maxCpus = cpus) {
    this.add(FW_CFG_SIGNATURE, new Uint8Array([0x51, 0x45, 0x4d, 0x55])); // QEMU
    this.add(FW_CFG_ID, littleEndian(1, 4)); // this interface, no DMA
    this.add(FW_CFG_RAM_BYTES, littleEndian(ramBytes, 8));
    this.add(FW_CFG_NOGRAPHIC, littleEndian(1, 2));
    this.add(FW_CFG_CPUS, littleEndian(cpus, 2));
    this.add(FW_CFG_MAX_CPUS, littleEndian(maxCpus, 2));
    this.add(FW_CFG_FILES, littleEndian(0, 4)); // a directory without entries
  }

  add(selector: number, bytes: Uint8Array): void {
    this.items.set(selector, bytes);
  }

  portRead(port: number): number {
    if (port === FW_CFG_PORT) return 0;
    const item = this.items.get(this.selector) ?? NO_BYTES;
    return this.offset < item.length ? item[this.offset++] : 0;
  }

  portWrite(port: number, bytes: number, value: number): void {
    if (port !== FW_CFG_PORT || bytes !== 2) return;
    this.selector = value;
    this.offset = 0;
  }
}

/** A number below 2^53 as bytes. */
function littleEndian(value: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) % 256);
}
