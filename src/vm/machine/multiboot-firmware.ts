/**
 * What firmware leaves behind for a multiboot kernel. Multiboot asks for it: the PIC has the BIOS's values, and what isn't
 * described otherwise is "as initialized by the BIOS". A kernel that halts in real mode counts on the timer's tick.
 *
 *     PIC    vectors 08 and 70; open are the timer and the cascade, all else is masked
 *     PIT    channel 0 ticks each 65536 of its clocks (18.2 Hz)
 *     gpa    0 interrupt vectors   46c ticks   ff000 their handlers
 */
import type { PortBus } from '../../dev/bus.ts';

const VECTORS = 256;
const IRQ0_VECTOR = 0x08;
const IRQ8_VECTOR = 0x70;
const HANDLER_SEGMENT = 0xff00;
const IGNORE = 0x00;
const TICK = 0x10;
const MASTER = 0x30;
const SLAVE = 0x40;
const HANDLERS_BYTES = 0x50;

/** Real-mode code at those offsets of the segment. */
const HANDLERS: readonly [number, readonly number[]][] = [
  [IGNORE, [0xcf]], // iret
  // push ds; push ax; xor ax, ax; mov ds, ax; inc dword [46c]; mov al, 20; out 20, al; pop ax; pop ds; iret
  [TICK, [0x1e, 0x50, 0x31, 0xc0, 0x8e, 0xd8]],
  [TICK + 6, [0x66, 0xff, 0x06, 0x6c, 0x04, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0x1f, 0xcf]],
  [MASTER, [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]], // push ax; mov al, 20; out 20, al; pop ax; iret
  [SLAVE, [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf]], // the same, but out a0, al first
];

const PORT_WRITES: readonly [number, number][] = [
  // PIT: channel 0, both bytes, mode 2; 0 is 65536.
  [0x43, 0x34],
  [0x40, 0],
  [0x40, 0],
  // PIC, after it, so that the edge of its output's first rise is forgotten: four initialization words, then the mask.
  ...[0x11, IRQ0_VECTOR, 0x04, 0x01, 0xfa].map((value, i): [number, number] => [i === 0 ? 0x20 : 0x21, value]),
  ...[0x11, IRQ8_VECTOR, 0x02, 0x01, 0xff].map((value, i): [number, number] => [i === 0 ? 0xa0 : 0xa1, value]),
];

/** To be called before the kernel's parts are put into memory: what it loads there is its own. */
export function leaveFirmware(write: (gpa: number, bytes: Uint8Array) => void, ports: PortBus): void {
  const handlers = new Uint8Array(HANDLERS_BYTES);
  for (const [offset, code] of HANDLERS) handlers.set(code, offset);
  write(HANDLER_SEGMENT * 16, handlers);
  const vectors = new DataView(new ArrayBuffer(VECTORS * 4));
  for (let vector = 0; vector < VECTORS; vector++)
    vectors.setUint32(vector * 4, ((HANDLER_SEGMENT << 16) | handlerOf(vector)) >>> 0, true);
  write(0, new Uint8Array(vectors.buffer));
  for (const [port, value] of PORT_WRITES) ports.write(port, 1, value);
}

function handlerOf(vector: number): number {
  if (vector === IRQ0_VECTOR) return TICK;
  if (vector >> 3 === IRQ0_VECTOR >> 3) return MASTER;
  return vector >> 3 === IRQ8_VECTOR >> 3 ? SLAVE : IGNORE;
}
