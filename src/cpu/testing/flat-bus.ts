/** A bus for tests: memory is mapped to itself from `host` on, ports and MSRs don't exist. */
import {
  ACCESS_WRITE,
  type Bus,
  NO_FAULT,
  RIGHT_FETCH,
  RIGHT_READ,
  RIGHT_WRITE,
  TRANSLATE_FAULT,
  TRANSLATE_MMIO,
  TRANSLATE_OK,
  type Translation,
} from '../bus.ts';

export class FlatBus implements Bus {
  readonly host: number;
  readonly bytes: number;
  readonly log: string[] = [];
  output = '';
  /** Pages that can't be written, pages that aren't there. */
  readonly readOnly = new Set<number>();
  readonly absent = new Set<number>();
  /** First page of a device register file, or -1. */
  mmioPage = -1;
  mmioValue = 0n;

  constructor(host: number, bytes: number) {
    this.host = host;
    this.bytes = bytes;
  }

  translate(lo: number, hi: number, access: number, out: Translation): number {
    const address = lo >>> 0;
    const page = address >>> 12;
    const error = access & 0xff;
    if (page === this.mmioPage) {
      out.gpaLo = lo & ~4095;
      out.gpaHi = 0;
      return TRANSLATE_MMIO;
    }
    if (hi !== 0 || address >= this.bytes || this.absent.has(page)) {
      out.errorCode = error;
      return TRANSLATE_FAULT;
    }
    const fixed = this.readOnly.has(page);
    if (fixed && access & ACCESS_WRITE) {
      out.errorCode = error | 1;
      return TRANSLATE_FAULT;
    }
    out.host = this.host + (address & ~4095);
    out.rights = RIGHT_READ | RIGHT_FETCH | (fixed ? 0 : RIGHT_WRITE);
    return TRANSLATE_OK;
  }

  mmioRead(gpaLo: number, _gpaHi: number, bytes: number): bigint {
    this.log.push(`read ${gpaLo.toString(16)} ${bytes}`);
    return this.mmioValue;
  }

  mmioWrite(gpaLo: number, _gpaHi: number, bytes: number, value: bigint): void {
    this.log.push(`write ${gpaLo.toString(16)} ${bytes} ${value.toString(16)}`);
  }

  portIn(port: number, bytes: number): number {
    this.log.push(`in ${port.toString(16)} ${bytes}`);
    return 0xffffffff | 0;
  }

  portOut(port: number, _bytes: number, value: number): void {
    if (port === 0xe9) this.output += String.fromCharCode(value);
    else this.log.push(`out ${port.toString(16)} ${(value >>> 0).toString(16)}`);
  }

  readMsr(): bigint | null {
    return null;
  }

  writeMsr(): boolean {
    return false;
  }

  cpuid(leaf: number): readonly [number, number, number, number] {
    return [leaf, 1, 2, 3];
  }

  controlWrite(): number {
    return NO_FAULT;
  }

  controlWritten(): void {}
  invalidatePage(lo: number): boolean {
    this.log.push(`invlpg ${(lo >>> 0).toString(16)}`);
    return false;
  }

  invalidatePcid(): boolean {
    return true;
  }

  acknowledgeInterrupt(): number {
    return -1;
  }

  codePage(): void {}
}
