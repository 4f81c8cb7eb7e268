/**
 * What leads out of a guest, in whole guests: Debian's generic kernel with its own drivers. The network reaches what was allowed and nothing
 * else; a disk under an overlay stays as it is; nothing leads out of a shared folder.
 * The images come from guests/build-image.sh, which is run if they are missing.
 */
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Machine, type MachineOptions } from '../machine.ts';
import { AllowedNetwork } from './allowed-network.ts';
import { openDisks } from './device-flags.ts';
import { packageFile } from './package-files.ts';
import { parseShare } from './shared-folder.ts';

const GUESTS = packageFile('guests');
const MINUTES = 60_000;
const folder = mkdtempSync(join(tmpdir(), 'penumbra-guest-'));
afterAll(() => rmSync(folder, { recursive: true }));

function image(name: string): Uint8Array {
  const path = join(GUESTS, 'out', 'image', name);
  if (!existsSync(path)) execFileSync('bash', [join(GUESTS, 'build-image.sh')], { stdio: 'inherit' });
  return readFileSync(path);
}

/** Without a root file system the initramfs gives a shell, with all drivers loaded. */
async function shell(options: Partial<MachineOptions>): Promise<Machine> {
  const machine = await Machine.boot({
    kernel: image('bzImage'),
    initrd: image('initrd.gz'),
    cmdline: 'console=ttyS0 quiet root=none',
    memory: 256 << 20,
    ...options,
  });
  if (process.env['SHOW']) machine.console.onOutput = (b) => void process.stderr.write(b);
  await machine.console.waitFor('# ');
  return machine;
}

const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

describe("a guest's network", () => {
  it(
    'fetches by HTTP from the address that was allowed, and from no other',
    async () => {
      const page = Array.from({ length: 20_000 }, (_, i) => `line ${i}`).join('\n');
      const asked: (string | undefined)[] = [];
      const server = createServer((request, response) => {
        asked.push(request.url);
        response.end(page);
      });
      let knocks = 0;
      const closed = createTcpServer((socket) => {
        knocks++;
        socket.destroy();
      });
      for (const one of [server, closed]) await once(one.listen(0, '127.0.0.1'), 'listening');
      const [port, other] = [server, closed].map((one) => (one.address() as AddressInfo).port);
      const machine = await shell({ network: new AllowedNetwork([`127.0.0.1:${port}`]) });
      const script =
        '#!/bin/sh\\n[ $1 = bound ] && ip address replace $ip/24 dev eth0 && ip route replace default via $router';
      await machine.exec(`printf '${script}\\n' >/script; chmod +x /script; ip link set eth0 up`);
      expect(await machine.exec('udhcpc -i eth0 -q -n -s /script 2>&1')).toMatchObject({
        output: expect.stringContaining('lease of 10.0.2.15 obtained from 10.0.2.2'),
        status: 0,
      });
      const hash = createHash('md5').update(page).digest('hex');
      const got = await machine.exec(`wget -q -O - http://10.0.2.2:${port}/some/page | md5sum`);
      expect(got).toEqual({ output: `${hash}  -\n`, status: 0 });
      for (const address of [`10.0.2.2:${other}`, `10.0.2.3:${port}`, '93.184.216.34:80'])
        expect(await machine.exec(`wget -q -O - http://${address}/`), address).toEqual({
          output: expect.stringContaining('Connection refused'),
          status: 1,
        });
      expect([asked, knocks]).toEqual([['/some/page'], 0]);
      machine.stop();
      for (const one of [server, closed]) one.close();
    },
    30 * MINUTES,
  );
});

describe("a guest's disk under an overlay", () => {
  it(
    'is not changed by a byte, and the overlay has what was written',
    async () => {
      const base = join(folder, 'base.img');
      const root = join(folder, 'root');
      mkdirSync(root);
      writeFileSync(join(root, 'old'), 'from the base\n');
      const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` };
      execFileSync('mke2fs', ['-q', '-t', 'ext4', '-d', root, base, '32M'], { env });
      const before = sha256(base);
      const flag = `${base},overlay=${join(folder, 'over')}`;
      const first = await shell({ disks: openDisks([flag]) });
      const write = 'mkdir /d; mount -t ext4 /dev/vda /d && cat /d/old && echo changed >/d/old && seq 200000 >/d/new';
      expect(await first.exec(`${write} && umount /d`)).toEqual({ output: 'from the base\n', status: 0 });
      first.stop();
      expect(sha256(base)).toBe(before);
      const numbers = Array.from({ length: 200_000 }, (_, i) => `${i + 1}\n`).join('');
      const hash = createHash('md5').update(numbers).digest('hex');
      const second = await shell({ disks: openDisks([flag, `${base},snapshot`]) });
      const read =
        'mkdir /d /b; mount -t ext4 /dev/vda /d && mount -t ext4 /dev/vdb /b && md5sum </d/new && cat /d/old /b/old';
      expect(await second.exec(read)).toEqual({ output: `${hash}  -\nchanged\nfrom the base\n`, status: 0 });
      second.stop();
      expect(sha256(base)).toBe(before);
    },
    30 * MINUTES,
  );
});

describe("a guest's disk without MSI", () => {
  it.each([
    ['IO-APIC', 'pci=nomsi'],
    ['XT-PIC', 'pci=nomsi noapic'],
    ['XT-PIC', 'pci=nomsi noapic acpi=off'],
  ])(
    'interrupts through the %s with %s',
    async (controller, flags) => {
      const disk = join(folder, 'plain.img');
      const contents = Buffer.from(Array.from({ length: 2 ** 20 }, (_, i) => (i * 7) >> 3));
      writeFileSync(disk, contents);
      const machine = await shell({ cmdline: `console=ttyS0 quiet root=none ${flags}`, disks: openDisks([disk]) });
      const hash = createHash('md5').update(contents).digest('hex');
      expect(await machine.exec('md5sum </dev/vda')).toEqual({ output: `${hash}  -\n`, status: 0 });
      const { output } = await machine.exec('grep virtio /proc/interrupts');
      expect(output).toMatch(new RegExp(`^ *\\d+: +[1-9]\\d* +${controller}\\b.*virtio0`));
      machine.stop();
    },
    30 * MINUTES,
  );
});

describe('a machine that boots again', () => {
  it(
    'gives the same kernel fresh devices, with the same contents',
    async () => {
      const disk = join(folder, 'again.img');
      writeFileSync(disk, new Uint8Array(2 ** 20));
      const share = parseShare(folder);
      const machine = await shell({ disks: openDisks([disk]), network: new AllowedNetwork([]), share, reboot: true });
      const look =
        'dd if=/dev/vda count=1 2>/dev/null | head -c 7; ip link set eth0 up && ping -c 1 10.0.2.2 | grep -c "1 packets rec"';
      const address = 'ip address add 10.0.2.15/24 dev eth0';
      expect(await machine.exec(`echo written | dd of=/dev/vda conv=fsync 2>/dev/null; ${address}; ${look}`)).toEqual({
        output: 'written1\n',
        status: 0,
      });
      const from = machine.console.length;
      machine.console.write('reboot -f\n');
      await machine.console.waitFor(/Restarting system[^]*BusyBox[^]*# /, from);
      expect(await machine.exec(`${address}; ${look}`)).toEqual({ output: 'written1\n', status: 0 });
      const mount = 'mkdir /mnt; mount -t 9p -o trans=virtio,version=9p2000.L host /mnt && ls /mnt/again.img';
      expect(await machine.exec(mount)).toEqual({ output: '/mnt/again.img\n', status: 0 });
      expect(machine.vm.verify()).toEqual([]);
      machine.stop();
    },
    30 * MINUTES,
  );
});

describe('out of a folder that a guest shares', () => {
  it(
    'leads neither `..` nor a link nor a race',
    async () => {
      const secret = 'outside';
      const share = join(folder, 'share');
      for (const path of ['share/sub', 'other']) mkdirSync(join(folder, path), { recursive: true });
      writeFileSync(join(share, 'hello'), 'hello guest\n');
      writeFileSync(join(share, 'sub', 'file'), 'inside\n');
      writeFileSync(join(folder, 'other', 'file'), secret);
      symlinkSync('../other/file', join(share, 'link'));
      symlinkSync(join(folder, 'other'), join(share, 'out'));
      symlinkSync('../other', join(share, 'trap'));
      const machine = await shell({ share: parseShare(`${share},rw`) });
      const mount = 'mkdir /mnt; mount -t 9p -o trans=virtio,version=9p2000.L host /mnt';
      expect(await machine.exec(`${mount} && cd /mnt && cat hello sub/file`)).toEqual({
        output: 'hello guest\ninside\n',
        status: 0,
      });
      expect((await machine.exec('echo from the guest >made')).status).toBe(0);
      expect(readFileSync(join(share, 'made'), 'utf8')).toBe('from the guest\n');
      for (const path of [
        '../other/file',
        'sub/../../other/file',
        'link',
        'out/file',
        'trap/file',
        join(folder, 'other/file'),
      ]) {
        const { output, status } = await machine.exec(`cat ${path}; cp hello ${path}`);
        expect([output.includes(secret), status], path).toEqual([false, 1]);
      }
      // Puts now the folder and now the link in the place of `door`, as fast as it can.
      const flip = `const fs = require('fs'); process.chdir(${JSON.stringify(share)});
        process.stdout.write('ready');
        for (;;) { fs.renameSync('sub', 'door'); fs.renameSync('door', 'sub'); fs.renameSync('trap', 'door'); fs.renameSync('door', 'trap'); }`;
      const flipper = spawn(process.execPath, ['-e', flip], { stdio: ['ignore', 'pipe', 'inherit'] });
      try {
        await once(flipper.stdout, 'data');
        // Without another process each: the shell's own.
        const loop =
          'for i in $(seq 400); do read x <door/file && echo "$x"; echo x >door/file2; done 2>/dev/null | sort | uniq -c';
        const { output } = await machine.exec(loop);
        expect(output).not.toContain(secret);
        process.stderr.write(`race: 400 tries, the folder's own file${output.replaceAll(/\s+/g, ' ')}times\n`);
      } finally {
        flipper.kill();
        await once(flipper, 'exit');
      }
      expect(existsSync(join(folder, 'other', 'file2'))).toBe(false);
      expect(readFileSync(join(folder, 'other', 'file'), 'utf8')).toBe(secret);
      machine.stop();
    },
    30 * MINUTES,
  );
});
