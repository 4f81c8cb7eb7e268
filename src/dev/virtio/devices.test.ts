import { describe, expect, it } from 'vitest';
import { BUFFERS_GPA, TestDriver } from './testing/driver.ts';
import { VirtioBalloon } from './virtio-balloon.ts';
import { VirtioConsole } from './virtio-console.ts';
import { VirtioRng } from './virtio-rng.ts';

const BUFFER = { gpa: BUFFERS_GPA, bytes: 8, write: true };

describe('an entropy device', () => {
  it('gives the same numbers for the same seed', () => {
    const numbers = [1, 1, 2].map((seed) => {
      const driver = new TestDriver((host) => new VirtioRng(host, seed));
      driver.start();
      driver.request(0, [BUFFER]);
      driver.request(0, [{ ...BUFFER, gpa: BUFFERS_GPA + 8 }]);
      return Buffer.from(driver.memory.bytes.subarray(BUFFERS_GPA, BUFFERS_GPA + 16)).toString('hex');
    });
    expect(numbers[0]).toBe(numbers[1]);
    expect(numbers[0]).not.toBe(numbers[2]);
    expect(numbers[0].slice(0, 16)).not.toBe(numbers[0].slice(16));
  });
});

describe('a console', () => {
  it('sends what the guest says, and gives it what waits', () => {
    let text = '';
    const sink = { writeByte: (byte: number) => void (text += String.fromCharCode(byte)) };
    const driver = new TestDriver((host) => new VirtioConsole(host, sink));
    driver.device.receive(Buffer.from('early, '));
    driver.start();
    driver.memory.bytes.set(Buffer.from('hello'), BUFFERS_GPA);
    expect(driver.request(1, [{ gpa: BUFFERS_GPA, bytes: 5 }])).toBe(0);
    expect(text).toBe('hello');
    expect(driver.takeInterrupt()).toBe(2);

    expect(driver.request(0, [BUFFER])).toBe(7);
    expect(driver.request(0, [BUFFER])).toBe(-1);
    driver.takeInterrupt();
    driver.device.receive(Buffer.from('more than fits'));
    expect(driver.takeInterrupt()).toBe(1);
    expect(driver.takeUsed(0)).toEqual([{ head: 2, bytes: 8 }]);
    expect(Buffer.from(driver.memory.bytes.subarray(BUFFERS_GPA, BUFFERS_GPA + 8)).toString()).toBe('more tha');
    expect(driver.request(0, [BUFFER])).toBe(6);
  });
});

describe('a balloon', () => {
  it('is filled in turns, each of which takes its time', () => {
    const driver = new TestDriver((host) => new VirtioBalloon(host));
    driver.start();
    // Each chain names 4096 pages, of 4 bytes each.
    for (let i = 0; i < 16; i++) driver.add(0, [{ gpa: 0x80000, bytes: 16384 }]);
    driver.notify(0);
    expect(driver.device.discarded).toBe(4 * 4096);
    driver.clock.advanceTo(driver.clock.now + 1e6);
    expect(driver.device.discarded).toBe(4 * 4096);
    driver.clock.advanceTo(driver.clock.now + 1e9);
    expect(driver.device.discarded).toBe(16 * 4096);
    expect(driver.takeUsed(0)).toHaveLength(16);
  });

  it('gives the pages to the host that are put into it, and tells how large it should be', () => {
    const driver = new TestDriver((host) => new VirtioBalloon(host));
    driver.start();
    driver.device.setTarget(300);
    expect(driver.takeInterrupt()).toBe(0);
    expect(driver.read(0x2000, 4)).toBe(300);
    driver.memory.bytes.fill(1, 0x80000, 0x83000);
    const pfns = [0x80, 0x82, 0xffffffff];
    for (const [i, pfn] of pfns.entries()) driver.memory.view.setUint32(BUFFERS_GPA + 4 * i, pfn, true);
    expect(driver.request(0, [{ gpa: BUFFERS_GPA, bytes: 13 }])).toBe(0);
    expect(driver.memory.discarded).toEqual([0x80000, 0x82000]);
    expect([0x80000, 0x81000, 0x82000].map((gpa) => driver.memory.bytes[gpa])).toEqual([0, 1, 0]);
    expect(driver.request(1, [{ gpa: BUFFERS_GPA, bytes: 12 }])).toBe(0);
    expect(driver.memory.discarded).toHaveLength(2);
    driver.write(0x2004, 4, 2);
    expect(driver.device.actualPages).toBe(2);
    driver.write(0x2000, 4, 77);
    expect(driver.read(0x2000, 4)).toBe(300);
  });
});
