import { describe, expect, it } from 'vitest';
import { EXIT_HALT } from './bus.ts';
import { initialize, startUp } from './real-mode.ts';
import { RAX, RBX, RCX, RDX, RSP } from './state.ts';
import { CODE, GDT, load, prepared } from './testing/prepared-machine.ts';

const START = 0x8000;

function started(code: string) {
  const machine = prepared();
  initialize(machine.cpu, 0);
  startUp(machine.cpu, START >>> 12);
  load(machine, code, START);
  return machine;
}

describe('real mode', () => {
  it('begins where the start-up message says', () => {
    // mov ax, cs; mov ds, ax; mov bx, [0x10]; hlt
    const machine = started('8cc8 8ed8 8b1e1000 f4');
    machine.ram.set([0x34, 0x12], START + 0x10);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RAX)).toBe(0x800);
    expect(machine.cpu.state.get(RBX)).toBe(0x1234);
  });

  it('has stacks of 64 KiB, calls and far calls', () => {
    // mov ax, 0x2000; mov ss, ax; xor sp, sp; call +2 (to the lcall); hlt; nop; lcall 0x900:0; ret
    const machine = started('b80020 8ed0 31e4 e80200 f4 90 9a00000009 c3');
    // inc cx; lret
    load(machine, '41 cb', 0x9000);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RCX)).toBe(1);
    expect(machine.cpu.state.get(RSP)).toBe(0);
    expect(machine.ram[0x2fffe]).toBe((START & 0xff) | 0x0a);
  });

  it('has interrupts through four bytes each', () => {
    // mov sp, 0x7000; int 0x21; inc bx; hlt
    const machine = started('bc0070 cd21 43 f4');
    machine.ram.set([0x00, 0x00, 0x00, 0x09], 0x21 * 4);
    // mov dx, 7; iret
    load(machine, 'ba0700 cf', 0x9000);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(7);
    expect(machine.cpu.state.get(RBX)).toBe(1);
    expect(machine.cpu.state.get(RSP)).toBe(0x7000);
  });

  it('is left for 32-bit code', () => {
    // xor ax, ax; mov ds, ax; lgdtl [0x8080]; mov eax, cr0; or al, 1; mov cr0, eax; ljmpl 0x38:CODE
    const machine = started('31c0 8ed8 660f01168080 0f20c0 0c01 0f22c0 66ea00001000 3800');
    const view = new DataView(machine.ram.buffer, machine.ram.byteOffset);
    view.setUint16(START + 0x80, 0x7f, true);
    view.setUint32(START + 0x82, GDT, true);
    // mov eax, 0x18; mov ss, eax; mov esp, 0x180000; push 0x12345678; pop ebx; hlt
    load(machine, 'b818000000 8ed0 bc00001800 6878563412 5b f4', CODE);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RBX)).toBe(0x12345678);
    expect(machine.cpu.state.get(RSP)).toBe(0x180000);
    expect(machine.cpu.mode).toBe(1);
  });
});
