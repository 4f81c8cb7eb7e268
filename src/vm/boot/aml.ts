/**
 * As much of ACPI's machine language as a small DSDT needs. Each function returns the bytes of one term; terms are put together by
 * nesting the calls. Names are written with their backslash and dots, each part of up to four characters.
 */
import { utf8 } from './boot-image.ts';

export type Aml = readonly number[];

const OP_NAME = 0x08;
const OP_BYTE = 0x0a;
const OP_WORD = 0x0b;
const OP_DWORD = 0x0c;
const OP_STRING = 0x0d;
const OP_SCOPE = 0x10;
const OP_BUFFER = 0x11;
const OP_PACKAGE = 0x12;
const OP_METHOD = 0x14;
const OP_EXTENDED = 0x5b;
const OP_STORE = 0x70;
const OP_DEVICE = 0x82;
const OP_IF = 0xa0;
const OP_RETURN = 0xa4;
/** A method's first argument. */
export const ARGUMENT_0: Aml = [0x68];

/** `\_SB.COM1`, `_HID`. */
export function nameString(path: string): Aml {
  const isRooted = path.startsWith('\\');
  const parts = (isRooted ? path.slice(1) : path).split('.').map((part) => [...utf8(part.padEnd(4, '_'))]);
  const prefix = parts.length === 1 ? [] : parts.length === 2 ? [0x2e] : [0x2f, parts.length];
  return [...(isRooted ? [0x5c] : []), ...prefix, ...parts.flat()];
}

/** A non-negative number below 2^32, in the shortest form. */
export function integer(value: number): Aml {
  if (value <= 1) return [value];
  if (value < 0x100) return [OP_BYTE, value];
  if (value < 0x10000) return [OP_WORD, value & 0xff, value >> 8];
  return [OP_DWORD, value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}

export function string(text: string): Aml {
  return [OP_STRING, ...utf8(text), 0];
}

export function packageOf(...elements: Aml[]): Aml {
  return [OP_PACKAGE, ...withLength([elements.length, ...elements.flat()])];
}

export function buffer(bytes: readonly number[]): Aml {
  return [OP_BUFFER, ...withLength([...integer(bytes.length), ...bytes])];
}

export function name(path: string, value: Aml): Aml {
  return [OP_NAME, ...nameString(path), ...value];
}

export function scope(path: string, ...terms: Aml[]): Aml {
  return [OP_SCOPE, ...withLength([...nameString(path), ...terms.flat()])];
}

export function device(path: string, ...terms: Aml[]): Aml {
  return [OP_EXTENDED, OP_DEVICE, ...withLength([...nameString(path), ...terms.flat()])];
}

export function method(path: string, argumentCount: number, ...terms: Aml[]): Aml {
  return [OP_METHOD, ...withLength([...nameString(path), argumentCount, ...terms.flat()])];
}

export function store(value: Aml, target: Aml): Aml {
  return [OP_STORE, ...value, ...target];
}

export function ifTrue(condition: Aml, ...terms: Aml[]): Aml {
  return [OP_IF, ...withLength([...condition, ...terms.flat()])];
}

export function returns(value: Aml): Aml {
  return [OP_RETURN, ...value];
}

/** A plug and play number like `PNP0501`, compressed: three letters of 5 bits, four hex digits, big-endian. */
export function eisaId(id: string): Aml {
  const letter = (i: number): number => id.charCodeAt(i) - 0x40;
  const value = (letter(0) << 26) | (letter(1) << 21) | (letter(2) << 16) | Number.parseInt(id.slice(3), 16);
  return [OP_DWORD, value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

/** Current resources: one range of ports and one edge-triggered ISA interrupt. */
export function portAndIrq(port: number, ports: number, irq: number): Aml {
  const io = [0x47, 0x01, port & 0xff, port >> 8, port & 0xff, port >> 8, 0x01, ports]; // 16-bit decode
  const irqNoFlags = [0x22, (1 << irq) & 0xff, (1 << irq) >> 8]; // edge, active high
  const endTag = [0x79, 0x00];
  return buffer([...io, ...irqNoFlags, ...endTag]);
}

/** Current resources of a PCI root: bus 0, configuration ports, all other ports, one window of memory. */
export function pciRoot(configPort: number, windowGpa: number, windowBytes: number): Aml {
  const u16 = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff];
  const u32 = (value: number): number[] => [...u16(value & 0xffff), ...u16(value >>> 16)];
  // Tag, length; type, flags, flags of the type; granularity, first, last, translation, length.
  const words = (first: number, last: number): number[] => [0, first, last, 0, last - first + 1].flatMap(u16);
  const ports = (first: number, last: number): number[] => [0x88, 0x0d, 0x00, 1, 0x0c, 3, ...words(first, last)];
  const memory = [0, windowGpa, windowGpa + windowBytes - 1, 0, windowBytes].flatMap(u32);
  const config = [0x47, 0x01, ...u16(configPort), ...u16(configPort), 0x01, 8];
  const io = [...ports(0, configPort - 1), ...ports(configPort + 8, 0xffff)];
  const window = [0x87, 0x17, 0x00, 0, 0x0c, 1, ...memory];
  return buffer([0x88, 0x0d, 0x00, 2, 0x0c, 0, ...words(0, 0), ...config, ...io, ...window, 0x79, 0x00]);
}

/** A package length counts itself: 1 byte up to 63, else 2 to 4. */
function withLength(body: readonly number[]): Aml {
  if (body.length + 1 <= 0x3f) return [body.length + 1, ...body];
  const bytes = body.length + 2 < 1 << 12 ? 1 : body.length + 3 < 1 << 20 ? 2 : 3;
  const length = body.length + 1 + bytes;
  const rest = Array.from({ length: bytes }, (_, i) => (length >> (4 + 8 * i)) & 0xff);
  return [(bytes << 6) | (length & 15), ...rest, ...body];
}
