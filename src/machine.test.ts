import { describe, expect, it } from 'vitest';
import { BootError, Machine } from './machine.ts';
import { codeImage, le32, TINY, TINY_OUTPUT } from './vm/machine/testing/guests.ts';

const MEMORY = 16 << 20;

/** Prints what it is sent, byte for byte, until a dot. */
const ECHO = codeImage(
  [0x66, 0xba, 0xfd, 0x03], // wait: mov dx, 0x3fd
  [0xec, 0xa8, 0x01, 0x74, 0xf7], // in al, dx; test al, 1; jz wait
  [0x66, 0xba, 0xf8, 0x03, 0xec, 0xee], // mov dx, 0x3f8; in al, dx; out dx, al
  [0x3c, 0x2e, 0x75, 0xed], // cmp al, '.'; jne wait
  [0xb0, 0, 0xe6, 0xf4],
);

describe('a machine', () => {
  it('boots, runs and ends', async () => {
    const machine = await Machine.boot({ kernel: TINY, memory: MEMORY });
    expect(await machine.ended).toMatchObject({ reason: 'power-off' });
    expect(machine.console.text).toBe(TINY_OUTPUT);
    expect(machine.stats().vcpus[0].pf_taken).toBeGreaterThan(0);
    expect(machine.vm.verify()).toEqual([]);
  });

  it('rejects what can not be booted', async () => {
    await expect(Machine.boot({ kernel: new Uint8Array(100) })).rejects.toThrow(BootError);
  });

  it('hears what is typed', async () => {
    const machine = await Machine.boot({ kernel: ECHO, memory: MEMORY });
    machine.console.write('hello');
    expect(await machine.console.waitFor(/l+/)).toBe('hell');
    machine.console.write('.');
    expect(await machine.ended).toMatchObject({ reason: 'debug-exit', status: 1 });
    expect(machine.console.text).toBe('hello.');
  });

  it('ends at a reset, or boots again if that was asked for', async () => {
    const kernel = codeImage(
      [0xff, 0x05, ...le32(0x8000), 0xa1, ...le32(0x8000)], // inc dword [0x8000]; mov eax, [0x8000]
      [0x83, 0xf8, 3, 0x72, 2, 0xe7, 0xf4], // cmp eax, 3; jb +2; out 0xf4, eax
      [0x66, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, 0xf4], // mov dx, 0xcf9; mov al, 6; out dx, al; hlt
    );
    const machine = await Machine.boot({ kernel, memory: MEMORY });
    expect(await machine.ended).toMatchObject({ reason: 'reset', status: 0 });
    const again = await Machine.boot({ kernel, memory: MEMORY, reboot: true });
    expect(await again.ended).toMatchObject({ reason: 'debug-exit', status: 7 });
  });

  it('tells who waits for something that it has ended', async () => {
    const machine = await Machine.boot({ kernel: TINY, memory: MEMORY });
    await expect(machine.console.waitFor('never')).rejects.toThrow('the machine ended (power-off) before never came');
  });

  it('stops when it is told to', async () => {
    const machine = await Machine.boot({ kernel: codeImage(0xeb, 0xfe), memory: MEMORY });
    machine.stop();
    expect(await machine.ended).toMatchObject({ reason: 'halted', status: 0, message: 'stopped' });
  });

  it('waits for the host’s clock in real time', async () => {
    // The PIT's channel 2, 1193 ticks (1 ms) in mode 0, 20 times; its output is bit 5 of port 0x61.
    const machine = Machine.load({
      kernel: codeImage(
        [0xb9, ...le32(20), 0xb0, 0x01, 0xe6, 0x61], // mov ecx, 20; gate on
        [0xb0, 0xb0, 0xe6, 0x43, 0xb0, 0xa9, 0xe6, 0x42, 0xb0, 0x04, 0xe6, 0x42], // again: arm
        [0xe4, 0x61, 0xa8, 0x20, 0x74, 0xfa, 0xe2, 0xec], // wait; loop again
        [0xb0, 0, 0xe6, 0xf4],
      ),
      memory: MEMORY,
      realtime: true,
    });
    const start = performance.now();
    machine.start();
    expect(await machine.ended).toMatchObject({ reason: 'debug-exit' });
    // At least what the guest's clock says has passed: a lower bound that no busy host breaks.
    expect(machine.stats().ns).toBeGreaterThan(20e6);
    expect(performance.now() - start).toBeGreaterThan(machine.stats().ns / 1e6 - 50);
  });
});
