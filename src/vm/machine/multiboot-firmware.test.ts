import { describe, expect, it } from 'vitest';
import { codeImage, le32, makePc, runToEnd } from './testing/guests.ts';

// From protected mode to real mode at 0x7c00, through a 16-bit segment: the code there is copied first.
const REAL_CODE = [
  [0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0], // mov eax, cr0; and al, ~1; mov cr0, eax
  [0xea, 0x0d, 0x7c, 0, 0], // jmp 0:7c0d
  [0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c], // ds = ss = 0, sp = 7c00
  [0xfb, 0xf4], // sti; hlt
  [0x66, 0xa1, 0x6c, 0x04, 0xe7, 0xf4], // mov eax, [46c]; out f4, ax
].flat();
const GDT = [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0x9b, 0, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0, 0];

const store = (gpa: number, bytes: readonly number[]): number[] =>
  bytes.flatMap((byte, i) => [0xc6, 0x05, ...le32(gpa + i), byte]); // mov byte [gpa], byte

describe('what firmware leaves for a multiboot kernel', () => {
  it('lets the tick of the timer end a halt in real mode', () => {
    const { pc } = makePc(
      codeImage(
        store(0x7c00, REAL_CODE),
        store(0x7d00, GDT),
        store(0x7d80, [0x17, 0, ...le32(0x7d00)]),
        store(0x7d88, [0xff, 0x03, ...le32(0)]),
        [0x0f, 0x01, 0x15, ...le32(0x7d80), 0x0f, 0x01, 0x1d, ...le32(0x7d88)], // lgdt; lidt
        [0x66, 0xb8, 0x10, 0, 0x8e, 0xd8, 0x8e, 0xd0], // ds = ss = 10
        [0xea, ...le32(0x7c00), 0x08, 0], // jmp 8:7c00
      ),
    );
    runToEnd(pc, 100_000);
    expect(pc.end).toMatchObject({ reason: 'debug-exit', status: 3 });
    // A full period after power-on: the first rise of the PIT's output is not a tick.
    expect(pc.board.clock.now).toBeGreaterThan(54e6);
    expect([...pc.board.pic.isr]).toEqual([0, 0]);
  });

  it('masks all but the timer and the cascade', () => {
    const { pc } = makePc(codeImage(0xf4));
    expect([...pc.board.pic.imr]).toEqual([0xfa, 0xff]);
    expect([...pc.board.pic.base]).toEqual([0x08, 0x70]);
    expect(pc.board.pic.output).toBe(false);
  });
});
