import { describe, expect, it } from 'vitest';
import { EXIT_BUDGET, EXIT_EXCEPTION, EXIT_HALT, EXIT_SHUTDOWN } from './bus.ts';
import {
  CPL,
  CR2,
  IDTR_LIMIT,
  INSTRUCTIONS,
  LINEAR_RIP,
  LSTAR,
  RAX,
  RBX,
  RCX,
  RDI,
  RDX,
  SFMASK,
  STAR,
} from './state.ts';
import { setRip } from './testing/bare-machine.ts';
import { CODE, HANDLER, load, prepared, STACK, stackWord } from './testing/prepared-machine.ts';

describe('the interpreter', () => {
  it('counts instructions', () => {
    const machine = prepared();
    // mov ecx, 1000; loop: dec ecx; jnz loop; hlt
    load(machine, 'b9e8030000 ffc9 75fc f4');
    expect(machine.cpu.run(1e6)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(INSTRUCTIONS)).toBe(2002);
  });

  it('stops when its budget is used up, at an exact place', () => {
    const machine = prepared();
    load(machine, 'ebfe');
    expect(machine.cpu.run(1000)).toBe(EXIT_BUDGET);
    expect(machine.cpu.state.get(INSTRUCTIONS)).toBe(1000);
    expect(machine.cpu.state.get(LINEAR_RIP)).toBe(CODE);
  });

  it('executes what a store has just written behind itself', () => {
    const machine = prepared();
    // mov byte [rip+1], 2; mov al, 1 (becomes mov al, 2); hlt
    load(machine, 'c6050100000002 b001 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RAX) & 255).toBe(2);
    load(machine, 'b007 f4');
    setRip(machine.cpu, CODE);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RAX) & 255).toBe(7);
  });

  it('executes instructions that lie in two pages, also after the second page changed', () => {
    const machine = prepared();
    load(machine, 'b878563412 f4', CODE + 0xffe);
    for (const round of [0x12345678, 0x12ff5678]) {
      setRip(machine.cpu, CODE + 0xffe);
      expect(machine.cpu.run(100)).toBe(EXIT_HALT);
      expect(machine.cpu.state.get(RAX)).toBe(round);
      machine.cpu.code.invalidate(machine.ram.byteOffset + CODE + 0x1000);
      machine.ram[CODE + 0x1001] = 0xff;
    }
  });

  it('faults in the second page of an access without having changed anything', () => {
    const machine = prepared();
    machine.bus.absent.add(0x301);
    machine.cpu.interceptExceptions = -1;
    // mov [rdi], rax
    load(machine, '488907 f4');
    machine.cpu.state.setPair(RDI, 0x300ffc, 0);
    machine.cpu.state.setPair(RAX, -1, -1);
    expect(machine.cpu.run(100)).toBe(EXIT_EXCEPTION);
    expect(machine.cpu.intercepted).toEqual({ vector: 14, error: 2 });
    expect(machine.cpu.state.get(CR2)).toBe(0x301000);
    expect(machine.ram.slice(0x300ffc, 0x301000)).toEqual(new Uint8Array(4));
    expect(machine.cpu.state.get(LINEAR_RIP)).toBe(CODE);
  });

  it('reads and writes devices', () => {
    const machine = prepared();
    machine.bus.mmioPage = 0x400;
    machine.bus.mmioValue = 0x11n;
    // mov edi, 0x400010; mov eax, [rdi]; add dword [rdi+4], 1; mov [rdi+8], al; hlt
    load(machine, 'bf10004000 8b07 83470401 884708 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.bus.log).toEqual(['read 400010 4', 'read 400014 4', 'write 400014 4 12', 'write 400018 1 11']);
  });

  it('repeats string instructions through a fault', () => {
    const machine = prepared();
    machine.bus.absent.add(0x301);
    machine.cpu.interceptExceptions = -1;
    // mov edi, 0x300ff0; mov ecx, 64; rep stosb; hlt
    load(machine, 'bff00f3000 b940000000 f3aa f4');
    expect(machine.cpu.run(100)).toBe(EXIT_EXCEPTION);
    expect(machine.cpu.state.get(RCX)).toBe(48);
    expect(machine.cpu.state.get(RDI)).toBe(0x301000);
    machine.bus.absent.clear();
    expect(machine.cpu.run(1000)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RCX)).toBe(0);
  });
});

describe('exceptions', () => {
  // biome-ignore format: a table
  it.each([
    ['a division by zero',            '31c9 f7f1',             0],
    ['an undefined instruction',      '0f0b',                  6],
    ['a breakpoint',                  'cc',                    3],
    ['INT n',                         'cd80',               0x80],
    ['a page that is absent',         'a10000000200000000',   14],
    ['a far address',                 '48b80000000000008000 8a00', 13],
    ['a reserved MSR',                'b978563412 0f32',      13],
    ['an instruction of 16 bytes',    '66666666666666666666666666666690', 13],
  ])('deliver %s', (_what, hex, vector) => {
    const machine = prepared();
    load(machine, `${hex} f4`);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(vector);
  });

  it('push the frame of 64-bit mode with the error code', () => {
    const machine = prepared();
    machine.bus.absent.add(0x301);
    load(machine, '8b042500103000 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect([0, 1, 2, 4, 5].map((i) => stackWord(machine, i))).toEqual([
      0n,
      BigInt(CODE),
      0x10n,
      BigInt(STACK - 0x1000),
      0x18n,
    ]);
  });

  it('change the stack when they come from ring 3, and IRET goes back', () => {
    const machine = prepared(3);
    // int 0x80; mov ebx, 5; hlt (#GP)
    load(machine, 'cd80 bb05000000 f4');
    load(machine, '48cf', HANDLER + 0x80 * 16);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RBX)).toBe(5);
    expect(machine.cpu.state.get(RDX)).toBe(13);
    expect(machine.cpu.state.get(CPL)).toBe(0);
  });

  it('shut down when a double fault faults', () => {
    const machine = prepared();
    machine.cpu.state.set(IDTR_LIMIT, 0);
    load(machine, '0f0b');
    expect(machine.cpu.run(100)).toBe(EXIT_SHUTDOWN);
  });

  it('trap after each instruction under TF', () => {
    const machine = prepared();
    // pushfq; or dword [rsp], 0x100; popfq; inc eax; inc eax
    load(machine, '9c 810c2400010000 9d ffc0 ffc0 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RAX)).toBe(1);
    expect(machine.cpu.state.get(RDX)).toBe(1);
  });
});

describe('interrupts', () => {
  it('wait for the instruction after STI', () => {
    const machine = prepared();
    machine.cpu.injectInterrupt(0x33);
    // sti; inc eax; inc eax; hlt
    load(machine, 'fb ffc0 ffc0 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RAX)).toBe(1);
    expect(machine.cpu.state.get(RDX)).toBe(0x33);
  });

  it('wait for IF, non-maskable ones do not', () => {
    const machine = prepared();
    machine.cpu.injectInterrupt(0x33);
    machine.cpu.injectNmi();
    load(machine, 'ffc0 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(2);
    expect(machine.cpu.withdrawInterrupt()).toBe(0x33);
  });
});

describe('SYSCALL and SYSRET', () => {
  it('go to ring 0 and back', () => {
    const machine = prepared(3);
    const { state } = machine.cpu;
    state.setPair(LSTAR, HANDLER, 0);
    state.setPair(STAR, 0, (0x23 << 16) | 0x10);
    state.setPair(SFMASK, 0x200, 0);
    // syscall; mov ebx, 7; hlt (#GP)
    load(machine, '0f05 bb07000000 f4');
    // mov esi, cs; sysretq
    load(machine, '8cce 480f07', HANDLER);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RBX)).toBe(7);
    expect(state.get(48)).toBe(0x10);
    expect(state.get(RDX)).toBe(13);
  });
});
