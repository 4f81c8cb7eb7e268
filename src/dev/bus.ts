/**
 * The two address spaces in which devices live: I/O ports, and guest physical addresses that no memory slot covers.
 * Values are unsigned numbers. What nobody claims reads as all ones and swallows writes, as on a PC.
 */
export interface PortDevice {
  /** Reads `bytes` (1, 2 or 4, at most the width it claimed) at `port`; bits above are ignored. */
  portRead(port: number, bytes: number): number;
  portWrite(port: number, bytes: number, value: number): void;
}

export interface MmioDevice {
  /** Reads `bytes` (1, 2 or 4) at `offset` from the start of the claimed range; bits above are ignored. */
  mmioRead(offset: number, bytes: number): number;
  mmioWrite(offset: number, bytes: number, value: number): void;
}

const PORTS = 65536;

/** The low `bytes` bytes of a value, unsigned. */
function truncate(value: number, bytes: number): number {
  return bytes === 4 ? value >>> 0 : value & ((1 << (bytes * 8)) - 1);
}

export class PortBus {
  /** 1 + index of the device that owns a port; 0: nobody. */
  private readonly owners = new Uint8Array(PORTS);
  private readonly devices: PortDevice[] = [];
  private readonly widths: number[] = [];

  /** Gives `count` ports to a device that takes accesses of up to `maxBytes`; wider ones arrive in pieces, low port first. */
  claim(first: number, count: number, device: PortDevice, maxBytes = 1): void {
    for (let port = first; port < first + count; port++) {
      if (this.owners[port] !== 0) throw new Error(`port 0x${port.toString(16)} has two owners`);
    }
    this.devices.push(device);
    this.widths.push(maxBytes);
    this.owners.fill(this.devices.length, first, first + count);
  }

  /** IN: `bytes` is 1, 2 or 4. */
  read(port: number, bytes: number): number {
    const owner = this.owners[port];
    if (bytes === 1) return owner === 0 ? 0xff : this.devices[owner - 1].portRead(port, 1) & 0xff;
    if (this.isWhole(port, bytes)) {
      return owner === 0 ? truncate(-1, bytes) : truncate(this.devices[owner - 1].portRead(port, bytes), bytes);
    }
    const half = bytes >> 1;
    const low = this.read(port, half);
    return truncate(low | (this.read((port + half) & 0xffff, half) << (half * 8)), bytes);
  }

  /** OUT: bits of `value` above `bytes` are ignored. */
  write(port: number, bytes: number, value: number): void {
    const owner = this.owners[port];
    if (bytes === 1 || this.isWhole(port, bytes)) {
      if (owner !== 0) this.devices[owner - 1].portWrite(port, bytes, truncate(value, bytes));
      return;
    }
    const half = bytes >> 1;
    this.write(port, half, value);
    this.write((port + half) & 0xffff, half, value >>> (half * 8));
  }

  /** Whether one device (or nobody) owns all ports of an access, and takes it in one piece. */
  private isWhole(port: number, bytes: number): boolean {
    const owner = this.owners[port];
    for (let i = 1; i < bytes; i++) if (this.owners[(port + i) & 0xffff] !== owner) return false;
    return owner === 0 || bytes <= this.widths[owner - 1];
  }
}

export class MmioBus {
  /** High word of the last 8-byte `read`. */
  readHi = 0;
  private readonly firsts: number[] = [];
  private readonly ends: number[] = [];
  private readonly devices: MmioDevice[] = [];

  claim(first: number, bytes: number, device: MmioDevice): void {
    for (let i = 0; i < this.devices.length; i++) {
      if (first < this.ends[i] && this.firsts[i] < first + bytes) {
        throw new Error(`gpa 0x${first.toString(16)} has two owners`);
      }
    }
    this.firsts.push(first);
    this.ends.push(first + bytes);
    this.devices.push(device);
  }

  /** Whether a device owns this address. */
  covers(gpa: number): boolean {
    return this.find(gpa) >= 0;
  }

  /** A load of 1, 2, 4 or 8 bytes; of 8, it returns the low word and leaves the high one in `readHi`. */
  read(gpa: number, bytes: number): number {
    if (bytes === 8) {
      const low = this.read(gpa, 4);
      this.readHi = this.read(gpa + 4, 4);
      return low;
    }
    const i = this.find(gpa);
    return truncate(i < 0 ? -1 : this.devices[i].mmioRead(gpa - this.firsts[i], bytes), bytes);
  }

  /** A store of 1, 2, 4 or 8 bytes; `hi` counts only for 8. */
  write(gpa: number, bytes: number, lo: number, hi = 0): void {
    if (bytes === 8) {
      this.write(gpa, 4, lo);
      this.write(gpa + 4, 4, hi);
      return;
    }
    const i = this.find(gpa);
    if (i >= 0) this.devices[i].mmioWrite(gpa - this.firsts[i], bytes, truncate(lo, bytes));
  }

  private find(gpa: number): number {
    for (let i = 0; i < this.devices.length; i++) if (gpa >= this.firsts[i] && gpa < this.ends[i]) return i;
    return -1;
  }
}
