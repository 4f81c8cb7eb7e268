import { spawn } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FileInfo } from '../dev/p9/folder-port.ts';
import { MessageReader, MessageWriter } from '../dev/p9/message.ts';
import { P9Server } from '../dev/p9/p9-server.ts';
import { SharedFolder, parseShare } from './shared-folder.ts';

const SECRET = 'outside';
let base: string;
let share: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'penumbra-share-'));
  share = join(base, 'share');
  mkdirSync(join(share, 'sub'), { recursive: true });
  writeFileSync(join(share, 'hello.txt'), 'hello guest');
  writeFileSync(join(share, 'sub', 'file'), 'inside');
  mkdirSync(join(base, 'other'));
  writeFileSync(join(base, 'other', 'file'), SECRET);
  symlinkSync('../other/file', join(share, 'link'));
  symlinkSync(join(base, 'other'), join(share, 'out'));
});
afterEach(() => rmSync(base, { recursive: true }));

/** A guest's 9P client: numbers of the answer after its header, or the error. */
class Client {
  readonly server: P9Server;
  constructor(folder: SharedFolder) {
    this.server = new P9Server(folder);
    this.ask(100, (to) => to.u32(65536).string('9P2000.L'));
    this.ask(104, (to) => to.u32(1).u32(0xffffffff).string('').string('').u32(0));
  }

  ask(type: number, fill: (to: MessageWriter) => void): { error: number; reader: MessageReader; length: number } {
    const message = new MessageWriter(new Uint8Array(4096));
    message.u32(0).u8(type).u16(9);
    fill(message);
    const reply = this.server.answer(message.bytes.slice(0, message.length), 65536);
    const reader = new MessageReader(reply, 7);
    if (new DataView(reply.buffer, reply.byteOffset).getUint32(0, true) !== reply.length)
      throw new Error('an answer of another length than it says');
    return { error: reply[4] === 7 ? reader.number(4) : 0, reader, length: reply.length };
  }

  /** Walks from the root to fid 2; 0, an error, or -1 if it didn't get all the way. */
  walk(...names: string[]): number {
    this.ask(120, (to) => to.u32(2));
    const { error, reader } = this.ask(110, (to) => {
      to.u32(1).u32(2).u16(names.length);
      for (const name of names) to.string(name);
    });
    return error !== 0 ? error : reader.number(2) === names.length ? 0 : -1;
  }

  /** The contents of a file, or the error. */
  read(...names: string[]): string | number {
    const walked = this.walk(...names);
    if (walked !== 0) return walked;
    const opened = this.ask(12, (to) => to.u32(2).u32(0)).error;
    if (opened !== 0) return opened;
    const { error, reader } = this.ask(116, (to) => to.u32(2).u64(0).u32(4000));
    return error !== 0 ? error : Buffer.from(reader.data(reader.number(4))).toString();
  }
}

describe('a large folder', () => {
  it('is listed again, rather than kept for everyone who reads it', () => {
    const folder = new SharedFolder(share, true);
    const one = { name: 'a', mode: 0o100644, inode: 1 };
    const entries = Array.from({ length: 30000 }, (_, i) => ({ ...one, name: `file${i}` }));
    folder.list = () => entries;
    const client = new Client(folder);
    const names = (fid: number, first: number): string => {
      const { reader } = client.ask(40, (to) => to.u32(fid).u64(first).u32(100));
      reader.data(4 + 13 + 8 + 1);
      return reader.string();
    };
    for (let fid = 10; fid < 60; fid++) {
      client.ask(110, (to) => to.u32(1).u32(fid).u16(0));
      client.ask(12, (to) => to.u32(fid).u32(0));
      expect(names(fid, 0)).toBe('file0');
      expect(client.server.entryCount).toBeLessThanOrEqual(65536);
    }
    for (let fid = 10; fid < 60; fid++) expect(names(fid, 29000)).toBe('file29000');
    expect(client.server.entryCount).toBeLessThanOrEqual(65536);
  });
});

describe('a file that was looked at', () => {
  it('is the same to the next guest', () => {
    const folder = new SharedFolder(share, true);
    const look = (): unknown => folder.stat(folder.walk(folder.root(), 'hello.txt'));
    utimesSync(join(share, 'hello.txt'), 1000, 2000);
    const before = look();
    utimesSync(join(share, 'hello.txt'), 3000, 2000);
    expect(look()).toEqual({ ...(before as FileInfo), changedMs: expect.any(Number) });
  });
});

describe('a shared folder', () => {
  it('is read by 9P', () => {
    const client = new Client(new SharedFolder(share, true));
    expect(client.read('hello.txt')).toBe('hello guest');
    expect(client.read('sub', 'file')).toBe('inside');
    expect(client.read('nothing')).toBe(2);
    expect(client.walk('sub', 'nothing')).toBe(-1);
    client.walk();
    expect(client.ask(12, (to) => to.u32(2).u32(0)).error).toBe(0);
    const { reader } = client.ask(40, (to) => to.u32(2).u64(0).u32(4000));
    const end = reader.number(4);
    const names: string[] = [];
    for (let at = 0; at < end; ) {
      reader.data(13 + 8 + 1);
      const name = reader.string();
      at += 24 + name.length;
      names.push(name);
    }
    expect(names).toEqual(['hello.txt', 'link', 'out', 'sub']);
    client.walk('link');
    expect(client.ask(22, (to) => to.u32(2)).reader.string()).toBe('../other/file');
  });

  it('is not written unless that was asked for', () => {
    const client = new Client(parseShare(share));
    client.walk('hello.txt');
    expect(client.ask(12, (to) => to.u32(2).u32(2)).error).toBe(30);
    expect(client.ask(76, (to) => to.u32(1).string('hello.txt').u32(0)).error).toBe(30);
    expect(client.ask(72, (to) => to.u32(1).string('new').u32(0o755).u32(0)).error).toBe(30);
    expect(client.ask(26, (to) => to.u32(2).u32(8).u32(0).u32(0).u32(0).u64(0)).error).toBe(30);
    expect(readFileSync(join(share, 'hello.txt'), 'utf8')).toBe('hello guest');
  });

  it('is written where that was asked for', () => {
    const client = new Client(parseShare(`${share},rw`));
    expect(client.ask(72, (to) => to.u32(1).string('new').u32(0o755).u32(0)).error).toBe(0);
    expect(client.walk('new')).toBe(0);
    expect(client.ask(14, (to) => to.u32(2).string('made').u32(2).u32(0o644).u32(0)).error).toBe(0);
    expect(client.ask(118, (to) => to.u32(2).u64(0).u32(4).raw(Buffer.from('data'))).error).toBe(0);
    expect(readFileSync(join(share, 'new', 'made'), 'utf8')).toBe('data');
    expect(client.ask(26, (to) => to.u32(2).u32(8).u32(0).u32(0).u32(0).u64(2)).error).toBe(0);
    expect(client.walk('new')).toBe(0);
    expect(client.ask(74, (to) => to.u32(2).string('made').u32(1).string('moved')).error).toBe(0);
    expect(readFileSync(join(share, 'moved'), 'utf8')).toBe('da');
    expect(client.ask(76, (to) => to.u32(1).string('moved').u32(0)).error).toBe(0);
    expect(client.ask(76, (to) => to.u32(1).string('new').u32(0x200)).error).toBe(0);
    expect(client.read('moved')).toBe(2);
  });

  it('gives all descriptors back', () => {
    const folder = new SharedFolder(share, true);
    const client = new Client(folder);
    for (let i = 0; i < 50; i++) client.read('sub', 'file');
    client.walk('link');
    expect(folder.nodeCount).toBe(2);
    client.server.reset();
    expect(folder.nodeCount).toBe(0);
  });
});

describe('out of a shared folder leads', () => {
  it('no name', () => {
    const client = new Client(parseShare(`${share},rw`));
    for (const name of ['..', '.', '', '../other/file', 'sub/../../other/file', '/etc/passwd', 'sub/file', 'a\0b'])
      expect(client.read(name), name).toBe(2);
    expect(client.walk('sub', '..', '..', 'other')).toBe(-1);
    for (const name of ['..', '../x', 'sub/x', '/tmp/x'])
      expect(client.ask(14, (to) => to.u32(1).string(name).u32(2).u32(0o644).u32(0)).error, name).toBe(22);
    expect(client.ask(74, (to) => to.u32(1).string('hello.txt').u32(1).string('../moved')).error).toBe(22);
  });

  it('no link', () => {
    const client = new Client(parseShare(`${share},rw`));
    expect(client.read('link')).toBe(40);
    expect(client.walk('out', 'file')).toBe(-1);
    client.walk('link');
    expect(client.ask(26, (to) => to.u32(2).u32(8).u32(0).u32(0).u32(0).u64(0)).error).not.toBe(0);
    expect(client.ask(14, (to) => to.u32(1).string('link').u32(2).u32(0o644).u32(0)).error).not.toBe(0);
    expect(client.walk('out')).toBe(0);
    expect(client.ask(76, (to) => to.u32(2).string('file').u32(0)).error).not.toBe(0);
    expect(readFileSync(join(base, 'other', 'file'), 'utf8')).toBe(SECRET);
  });

  it('no link that takes the place of a folder that the guest holds', () => {
    const client = new Client(new SharedFolder(share, true));
    expect(client.walk('sub')).toBe(0);
    renameSync(join(share, 'sub'), join(share, 'was'));
    symlinkSync('../other', join(share, 'sub'));
    client.ask(110, (to) => to.u32(2).u32(3).u16(1).string('file'));
    client.ask(12, (to) => to.u32(3).u32(0));
    const { reader } = client.ask(116, (to) => to.u32(3).u64(0).u32(100));
    expect(Buffer.from(reader.data(reader.number(4))).toString()).toBe('inside');
    expect(client.read('sub', 'file')).toBe(-1);
  });

  it('no race between a folder and a link of the same name', async () => {
    symlinkSync('../other', join(share, 'trap'));
    // Puts now the folder and now the link in the place of `door`.
    const flip = `const fs = require('fs'); process.chdir(${JSON.stringify(share)});
      process.stdout.write('ready');
      const until = Date.now() + 20000;
      while (Date.now() < until) { fs.renameSync('sub', 'door'); fs.renameSync('door', 'sub');
        fs.renameSync('trap', 'door'); fs.renameSync('door', 'trap'); }`;
    const flipper = spawn(process.execPath, ['-e', flip], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await new Promise((resolve) => flipper.stdout.once('data', resolve));
      const client = new Client(new SharedFolder(share, true));
      const found = new Map<string | number, number>();
      const until = performance.now() + 400;
      for (let i = 0; i < 200 || performance.now() < until; i++) {
        const result = client.read('door', 'file');
        found.set(result, (found.get(result) ?? 0) + 1);
      }
      expect([...found.keys()].filter((key) => typeof key === 'string' && key !== 'inside')).toEqual([]);
    } finally {
      const ended = new Promise((resolve) => flipper.once('exit', resolve));
      flipper.kill();
      await ended;
    }
  });
});

describe('a malicious client', () => {
  it('gets an answer to whatever it sends', () => {
    const client = new Client(parseShare(`${share},rw`));
    for (let type = 0; type < 256; type++) {
      for (const length of [0, 3, 4, 11, 30]) {
        const message = new Uint8Array(7 + length).fill(0xff);
        message[4] = type;
        // One that would make or rename something has a name of 65535 bytes, which isn't there.
        expect(client.server.answer(message, 65536).length).toBeGreaterThanOrEqual(7);
      }
    }
    expect(client.server.answer(Uint8Array.of(1, 2), 100).length).toBe(11);
    expect(client.server.answer(new Uint8Array(7), 3)).toHaveLength(0);
  });
});

describe('--share', () => {
  it('takes a folder', () => {
    expect(() => parseShare('')).toThrow(/FOLDER,rw/);
    expect(() => parseShare(`${share},ro`)).toThrow(/FOLDER,rw/);
    expect(() => parseShare(join(share, 'hello.txt'))).toThrow(/ENOTDIR/);
    expect(() => parseShare(join(share, 'none'))).toThrow(/ENOENT/);
  });
});
