import { describe, expect, it } from 'vitest';
import { bootPc } from './boot.ts';
import type { Pc } from './pc.ts';
import { codeImage, le32, makePc, runToEnd } from './testing/guests.ts';

const outb = (port: number, value: number): number[] => [0x66, 0xba, port & 255, port >> 8, 0xb0, value, 0xee];
const storeWord = (gpa: number, value: number): number[] => [0xc7, 0x05, ...le32(gpa), ...le32(value)];
const HALT = [0xfa, 0xf4];
/** mov eax, N; out f4, eax */
const exit = (value: number): number[] => [0xb8, ...le32(value), 0xe7, 0xf4];
const shutdownByte = (value: number): number[] => [...outb(0x70, 0x0f), ...outb(0x71, value)];
/** In real mode at 7000: mov al, 0f; out 70, al; in al, 71; mov ah, 2a; out f4, ax: 2a00 and the shutdown byte. */
const RESUMED = [storeWord(0x7000, 0x70e60fb0), storeWord(0x7004, 0x2ab471e4), storeWord(0x7008, 0x9090f4e7)].flat();
const POINTER = storeWord(0x467, 0x07000000); // 0700:0000

const INITS: readonly (readonly [string, number[]])[] = [
  ['port 92', outb(0x92, 1)],
  ['the keyboard controller', outb(0x64, 0xfe)],
  ['the reset register', outb(0xcf9, 4)],
  ['an INIT message to itself', storeWord(0xfee00300, 0x00044500)],
];

/** A machine that boots its kernel again. */
function withReboot(kernel: Uint8Array, options: Parameters<typeof makePc>[1] = {}): Pc {
  const { pc } = makePc(kernel, options);
  pc.onBoot = () => void bootPc(pc, { kernel, cmdline: '' });
  return pc;
}

describe.each(['tdp', 'shadow'] as const)('the reset vector (%s)', (paging) => {
  it.each(INITS)('leads back to a program that has said so in CMOS memory, after %s', (_name, init) => {
    for (const reason of [0x05, 0x0a]) {
      const { pc } = makePc(codeImage(RESUMED, POINTER, shutdownByte(reason), init, HALT), { paging });
      runToEnd(pc, 10_000);
      // The byte is cleared.
      expect(pc.end).toMatchObject({ reason: 'debug-exit', status: (0x2a00 << 1) | 1 });
      expect(pc.vm.verify()).toEqual([]);
    }
  });

  it.each(INITS)('is the end of a machine that does not boot again, after %s', (_name, init) => {
    const { pc } = makePc(codeImage(RESUMED, POINTER, shutdownByte(0), init, HALT), { paging });
    runToEnd(pc, 10_000);
    expect(pc.end).toMatchObject({ reason: 'reset', status: 0 });
  });

  it('is read-only below 4 GiB', () => {
    // mov byte [fffffff0], 0; mov al, [fffffff0]; out f4, al
    const code = [
      [0xc6, 0x05, ...le32(0xfffffff0), 0],
      [0xa0, ...le32(0xfffffff0), 0xe6, 0xf4],
    ].flat();
    const { pc } = makePc(codeImage(code), { paging });
    runToEnd(pc, 10_000);
    expect(pc.end?.status).toBe((0xea << 1) | 1);
  });
});

// inc dword [8000]; mov eax, [8000]; cmp eax, 2; jb +7; out f4, eax
const COUNT_BOOTS = [
  [0xff, 0x05, ...le32(0x8000), 0xa1, ...le32(0x8000)],
  [0x83, 0xf8, 2, 0x72, 2, 0xe7, 0xf4],
].flat();
// lidt [8010], which is zero; ud2
const TRIPLE_FAULT = [0x0f, 0x01, 0x1d, ...le32(0x8010), 0x0f, 0x0b];

describe.each(['tdp', 'shadow'] as const)('a machine that boots again (%s)', (paging) => {
  it.each([
    ...INITS,
    ['a reset of the whole machine', outb(0xcf9, 6)] as const,
    ['a triple fault', TRIPLE_FAULT] as const,
  ])('does so after %s, with memory as it was', (_name, init) => {
    const pc = withReboot(codeImage(COUNT_BOOTS, init, HALT), { paging });
    runToEnd(pc, 100_000);
    expect(pc.end).toMatchObject({ reason: 'debug-exit', status: 5 });
    expect(pc.vm.verify()).toEqual([]);
  });

  it("loads the kernel's own memory anew", () => {
    // A word behind the code (loaded as zero), and a device: both are fresh each time.
    const word = 0x101000;
    const fresh = [0x83, 0x3d, ...le32(word), 0, 0x74, 7, ...exit(99)]; // cmp dword [word], 0; je +7
    const changes = [storeWord(word, 1), outb(0x21, 0x55)].flat();
    const pc = withReboot(codeImage(fresh, COUNT_BOOTS, changes, outb(0xcf9, 6), HALT), { paging });
    runToEnd(pc, 100_000);
    expect(pc.end?.status).toBe(5);
    expect(pc.board.pic.imr[0]).toBe(0xfa);
  });

  it('stops the other processors', () => {
    // The second processor counts at a000: inc dword [a000]; jmp to it.
    const begin = [storeWord(0x7000, 0x0006ff66), storeWord(0x7004, 0x90f9eba0)].flat();
    const start = [storeWord(0xfee00300, 0x000c4500), storeWord(0xfee00300, 0x000c4607)].flat();
    const wait = [0xb9, ...le32(50_000), 0xe2, 0xfe]; // mov ecx, 50000; loop
    const pc = withReboot(codeImage(COUNT_BOOTS, begin, start, wait, outb(0xcf9, 6), HALT), { paging, cpus: 2 });
    runToEnd(pc, 1_000_000);
    expect(pc.end?.status).toBe(5);
    expect(new Uint32Array(pc.ram.buffer, pc.ram.byteOffset + 0xa000, 1)[0]).toBeGreaterThan(1000);
    expect(pc.cpus[1].isRunnable()).toBe(false);
  });
});
