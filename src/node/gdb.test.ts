/**
 * `penumbra run --gdb` and Debian's GDB: a session in batch mode on the tiny guest, with symbols of what nasm says its labels are. And
 * the port itself, with whoever may come.
 */
import { execFile, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { parseSymbols, symbolFile } from '../../guests/symbols.mjs';
import { Stub } from '../gdb/stub.ts';
import { checksum } from '../gdb/testing/session.ts';
import { Machine } from '../machine.ts';
import { codeImage, TINY, TINY_OUTPUT } from '../vm/machine/testing/guests.ts';
import { GdbServer, parseGdbFlag } from './gdb-server.ts';
import { packageFile } from './package-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-gdb-'));
afterAll(() => rmSync(folder, { recursive: true }));

const missing = ['gdb', 'nasm'].filter((name) => spawnSync(name, ['--version']).error !== undefined);
const MEMORY = 32 << 20;
/** jmp to itself */
const LOOP = codeImage(0xeb, 0xfe);

/** The tiny guest's labels, from nasm's map of it. */
function tinySymbols(): string {
  const map = join(folder, 'tiny.map');
  writeFileSync(join(folder, 'map.inc'), `[map symbols ${map}]\n`);
  const source = packageFile('guests', 'tiny', 'tiny.asm');
  spawnSync('nasm', ['-f', 'bin', '-p', join(folder, 'map.inc'), '-o', join(folder, 'tiny.elf'), source]);
  expect(readFileSync(join(folder, 'tiny.elf')).equals(TINY)).toBe(true);
  const code = readFileSync(map, 'utf8').matchAll(/^ +[0-9A-F]+ +([0-9A-F]+) +(\w+)$/gm);
  const isData = /^(elf|program|gdt|gdtr|info|idtr|faults|status|hello|faults_are|checksum_is|done|bad|idt|end)$/;
  const list = [...code].map(([, address, name]) => `${address} ${isData.test(name) ? 'd' : 't'} ${name}`).join('\n');
  const path = join(folder, 'symbols.elf');
  writeFileSync(path, symbolFile(parseSymbols(list)));
  return path;
}

async function served(
  kernel: Uint8Array = TINY,
): Promise<{ machine: Machine; server: GdbServer; output: () => string }> {
  const machine = Machine.load({ kernel, memory: MEMORY });
  return { machine, server: await GdbServer.listen(machine, 0), output: () => machine.console.text };
}

describe.skipIf(missing.length > 0)(`GDB (skipped without ${missing.join(', ') || 'gdb, nasm'})`, () => {
  it('finds breakpoints, watchpoints, steps, registers, callers and memory of a guest', async () => {
    const symbols = tinySymbols();
    const { machine, server, output } = await served();
    const commands = [
      `target remote 127.0.0.1:${server.port}`,
      'hbreak long_mode',
      'continue',
      'watch *(unsigned *)&faults',
      'continue',
      'x/i $rip',
      'delete',
      'break print_hex',
      'continue',
      'printf "at %#lx, rax %lu, cr0 %#lx, cs %#x base %#lx\\n", $rip, $rax, $cr0, $cs, $cs_base',
      'backtrace 2',
      'print $cr0',
      'info symbol $rip',
      'stepi',
      'printf "ebx %u\\n", $ebx',
      'x/s &hello',
      'print /x *(unsigned char (*)[4])0x100000',
      `dump binary memory ${join(folder, 'dump')} 0x100000 0x1005c0`,
      'delete',
      'watch *(char *)&status',
      'set variable *(char *)&status = 7',
      'break put if $al == 99',
      'continue',
      'info threads',
      'printf "letter %c\\n", $al',
      'set $al = 67',
      'delete',
      'continue',
    ];
    const ended = machine.ended.then((end) => server.finish(end).then(() => end));
    const args = ['-nx', '-batch', symbols, ...commands.flatMap((command) => ['-ex', command])];
    const { stdout, stderr } = await promisify(execFile)('gdb', args, { timeout: 60_000 });
    expect(stdout).toMatch(/Breakpoint 1, 0x0*10015e in long_mode \(\)/);
    expect(stdout).toMatch(
      /Hardware watchpoint 2: .*\n\nOld value = 0\nNew value = 1\n0x0*10041a in page_fault \(\)\n/,
    );
    expect(stdout).toContain('=> 0x10041a <page_fault+10>:\tmov    %cr2,%rax\n');
    expect(stdout).toMatch(/Breakpoint 3, 0x0*1003d9 in print_hex \(\)/);
    expect(stdout).toContain('at 0x1003d9, rax 67, cr0 0x80010011, cs 0x8 base 0\n');
    expect(stdout).toMatch(/#0 +0x0*1003d9 in print_hex \(\)\n#1 +0x0*10034d in report \(\)/);
    expect(stdout).toContain('= [ PE ET WP PG ]\n');
    expect(stdout).toContain('print_hex in section .text');
    expect(stdout).toContain('ebx 67\n');
    expect(stdout).toContain(':\t"hello from long mode\\n"\n');
    expect(stdout).toContain('= {0x7f, 0x45, 0x4c, 0x46}\n');
    // A guest's memory is its file's but for what it has written of it.
    const code = readFileSync(join(folder, 'dump')).subarray(0, 0x138);
    expect(code.equals(TINY.subarray(0, 0x138))).toBe(true);
    expect(stdout).toContain('* 1    Thread 1 (CPU 0 [running])');
    expect(stdout).toContain('letter c\n');
    // GDB's own write of what it watches is no hit, and the guest wrote 7 nowhere: it ends by it.
    expect(stdout).toContain('exited with code 017]');
    expect(stderr.replaceAll(/^warning: .*\n?/gm, '')).toBe('');
    expect(await ended).toMatchObject({ reason: 'debug-exit', status: 15 });
    expect(output()).toBe(TINY_OUTPUT.replace(' checksum', ' Checksum'));
  }, 120_000);

  it('stops a guest that runs, and leaves it running', async () => {
    const { machine, server } = await served(LOOP);
    machine.start();
    const args = [
      '-nx',
      '-batch',
      '-ex',
      `target remote 127.0.0.1:${server.port}`,
      '-ex',
      'print $rip',
      '-ex',
      'detach',
    ];
    const { stdout } = await promisify(execFile)('gdb', args, { timeout: 60_000 });
    expect(stdout).toContain('(void (*)()) 0x100010');
    const before = machine.pc.instructions;
    await until(() => machine.pc.instructions > before);
    machine.stop();
    await server.finish(await machine.ended);
  }, 120_000);
});

const packet = (text: string): string => `+$${text}#${checksum(text)}`;

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

function client(port: number): Promise<{ socket: Socket; text: () => string; closed: Promise<void> }> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => resolve({ socket, text: () => text, closed }));
    const closed = new Promise<void>((done) => socket.on('close', () => done()));
    socket.on('data', (data) => (text += data.toString('latin1')));
    socket.on('error', reject);
  });
}

describe('the port', () => {
  it('stops the machine for who connects, by Ctrl-C again, and leaves it running when he dies', async () => {
    const { machine, server } = await served(LOOP);
    machine.start();
    const { socket, text } = await client(server.port);
    socket.write(packet('?'));
    await until(() => /T02.*#../.test(text()));
    expect(text()).toMatch(/^\+\$T02thread:1;#..$/);
    expect(machine.isRunning).toBe(false);
    const before = machine.pc.instructions;
    socket.write(packet('Z0,100010,1') + packet('vCont;c'));
    await until(() => text().includes('T05'));
    socket.write(packet('z0,100010,1') + packet('c'));
    await until(() => machine.pc.instructions > before + 1e6);
    socket.write('\x03');
    await until(() => text().split('T02').length === 3);
    // Another breakpoint, which must not stop a guest that nobody debugs.
    socket.write(packet('Z0,100010,1'));
    await until(() => text().endsWith('OK#9a'));
    socket.destroy();
    const then = machine.pc.instructions;
    await until(() => machine.pc.instructions > then + 1e6);
    machine.stop();
    await server.finish(await machine.ended);
  });

  it('is for one at a time', async () => {
    const { machine, server } = await served(LOOP);
    const first = await client(server.port);
    const second = await client(server.port);
    await second.closed;
    first.socket.write(packet('qC'));
    await until(() => first.text().includes('QC1'));
    first.socket.write(packet('k'));
    await first.closed;
    const end = await machine.ended;
    await server.finish(end);
    expect([second.text(), end.message]).toEqual(['', 'stopped']);
  });

  it('reads no more from who does not read the answers', async () => {
    const { machine, server } = await served(LOOP);
    const { socket } = await client(server.port);
    socket.pause();
    const stub = vi.spyOn(Stub.prototype, 'receive');
    const heard = (): number => stub.mock.calls.reduce((sum, [bytes]) => sum + bytes.length, 0);
    for (let i = 0; i < 256; i++) socket.write(Buffer.alloc(65536, packet('?')));
    for (let before = -1; before !== heard(); ) {
      before = heard();
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    expect(heard()).toBeGreaterThan(0);
    expect(heard()).toBeLessThan(256 * 65536);
    stub.mockRestore();
    socket.destroy();
    machine.stop();
    await server.finish(await machine.ended);
  });

  it('is free when the guest has ended, even if the other side does not hang up', async () => {
    const { machine, server } = await served(TINY);
    const socket = connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.resume();
    socket.write(packet('c'));
    const end = await machine.ended;
    await server.finish(end);
    expect(end.reason).toBe('power-off');
    socket.destroy();
  }, 20_000);

  it('bears noise', async () => {
    const { machine, server } = await served(LOOP);
    const { socket, text } = await client(server.port);
    socket.write(Buffer.alloc(200_000, '$GET / HTTP/1.1\r\n\x03#zz'));
    socket.write(packet('qC'));
    await until(() => text().includes('QC1'));
    expect(text()).not.toContain('$T');
    socket.end();
    machine.stop();
    await server.finish(await machine.ended);
  });

  it('that is in use is one clear error', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as { port: number };
    const child = spawn(process.execPath, [
      packageFile('bin', 'penumbra.mjs'),
      'run',
      '--memory',
      '16M',
      '--gdb',
      String(port),
    ]);
    let text = '';
    child.stderr.on('data', (data: Buffer) => (text += data.toString()));
    const status = await new Promise((resolve) => child.on('close', resolve));
    other.close();
    expect({ status, text }).toEqual({
      status: 2,
      text: `penumbra: --gdb ${port}: listen EADDRINUSE: address already in use 127.0.0.1:${port}\n`,
    });
  }, 60_000);

  // biome-ignore format: a table
  it.each(['', 'x', '70000', '1234,go', '-1', '1e3'])('is a number: not %s', (text) => {
    expect(() => parseGdbFlag(text)).toThrow(/^--gdb takes a port/);
  });

  it('may be waited at', () => {
    expect([parseGdbFlag('1234'), parseGdbFlag('0,wait')]).toEqual([
      { port: 1234, waits: false },
      { port: 0, waits: true },
    ]);
  });
});
