/**
 * The two devices that kvm-unit-tests drives, with QEMU's addresses.
 *
 * `DebugExit` (port 0xf4, 4 ports, up to 4 bytes): writing v ends the run with status (v << 1) | 1.
 * `TestDevice`: 0xe0 is a 32-bit word of memory, 0xe8 is the same word taken byte by byte; writing a gpa to 0xe4 takes that page's
 * mapping away on the host side; a byte to 0x2000 + n sets interrupt line n; 64 KiB of memory-mapped bytes at 0xff000000.
 */
import type { MmioDevice, PortBus, PortDevice } from './bus.ts';
import type { IrqSink } from './irq.ts';
import { DEBUG_EXIT, type PowerState } from './power.ts';

export const DEBUG_EXIT_PORT = 0xf4;
export const TEST_WORD_PORT = 0xe0;
export const TEST_FLUSH_PORT = 0xe4;
export const TEST_BYTES_PORT = 0xe8;
export const TEST_IRQ_PORT = 0x2000;
export const TEST_IRQS = 24;
export const TEST_MEMORY_GPA = 0xff000000;
export const TEST_MEMORY_BYTES = 0x10000;

export class DebugExit implements PortDevice {
  private readonly power: PowerState;

  constructor(power: PowerState) {
    this.power = power;
  }

  portRead(): number {
    return 0;
  }

  portWrite(_port: number, _bytes: number, value: number): void {
    this.power.ask(DEBUG_EXIT, ((value << 1) | 1) >>> 0);
  }
}

/** The host unmaps a page and maps it again: what KVM hears through its MMU notifier. */
export interface PageFlusher {
  flushPage(gpa: number): void;
}

export class TestDevice implements PortDevice, MmioDevice {
  word = 0;
  readonly memory = new Uint8Array(TEST_MEMORY_BYTES);
  private readonly irqs: IrqSink;
  private readonly flusher: PageFlusher | null;

  constructor(irqs: IrqSink, flusher: PageFlusher | null) {
    this.irqs = irqs;
    this.flusher = flusher;
  }

  claimPorts(ports: PortBus): void {
    ports.claim(TEST_WORD_PORT, 4, this, 4);
    ports.claim(TEST_FLUSH_PORT, 4, this, 4);
    ports.claim(TEST_BYTES_PORT, 4, this, 1);
    ports.claim(TEST_IRQ_PORT, TEST_IRQS, this, 1);
  }

  portRead(port: number): number {
    if (port >= TEST_IRQ_PORT || (port & ~3) === TEST_FLUSH_PORT) return -1;
    return this.word >>> ((port & 3) * 8);
  }

  portWrite(port: number, bytes: number, value: number): void {
    if (port >= TEST_IRQ_PORT) {
      this.irqs.setPin(port - TEST_IRQ_PORT, value !== 0);
    } else if ((port & ~3) === TEST_FLUSH_PORT) {
      if (bytes === 4) this.flusher?.flushPage(value - (value % 4096));
    } else {
      const shift = (port & 3) * 8;
      const mask = (bytes === 4 ? -1 : (1 << (bytes * 8)) - 1) << shift;
      this.word = (this.word & ~mask) | ((value << shift) & mask);
    }
  }

  mmioRead(offset: number, bytes: number): number {
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = (value << 8) | this.memory[(offset + i) % TEST_MEMORY_BYTES];
    return value;
  }

  mmioWrite(offset: number, bytes: number, value: number): void {
    for (let i = 0; i < bytes; i++) this.memory[(offset + i) % TEST_MEMORY_BYTES] = value >>> (i * 8);
  }
}
