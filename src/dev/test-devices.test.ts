import { beforeEach, describe, expect, it } from 'vitest';
import { MmioBus, PortBus } from './bus.ts';
import { FwCfg } from './fw-cfg.ts';
import { DEBUG_EXIT, PowerState } from './power.ts';
import { DebugExit, TEST_MEMORY_BYTES, TEST_MEMORY_GPA, TestDevice } from './test-devices.ts';

describe('the debug-exit device', () => {
  it('ends the run with an odd status', () => {
    const power = new PowerState();
    new DebugExit(power).portWrite(0xf4, 4, 0);
    expect([power.request, power.status]).toEqual([DEBUG_EXIT, 1]);
    power.clear();
    new DebugExit(power).portWrite(0xf4, 4, 5);
    expect(power.status).toBe(11);
  });
});

describe('the test device', () => {
  let ports: PortBus;
  let mmio: MmioBus;
  let pins: [number, boolean][];
  let flushed: number[];
  beforeEach(() => {
    ports = new PortBus();
    mmio = new MmioBus();
    pins = [];
    flushed = [];
    const device = new TestDevice(
      { setPin: (pin, level) => pins.push([pin, level]) },
      { flushPage: (gpa) => flushed.push(gpa) },
    );
    device.claimPorts(ports);
    mmio.claim(TEST_MEMORY_GPA, TEST_MEMORY_BYTES, device);
  });

  it('has a word of memory, whole and in bytes', () => {
    ports.write(0xe0, 4, 0x12345678);
    expect([ports.read(0xe0, 4), ports.read(0xe0, 1), ports.read(0xe2, 2)]).toEqual([0x12345678, 0x78, 0x1234]);
    ports.write(0xe1, 1, 0xab);
    ports.write(0xe8, 2, 0xeeff);
    expect([ports.read(0xe8, 4), ports.read(0xe0, 4)]).toEqual([0x1234eeff, 0x1234eeff]);
  });

  it('takes the mapping of a page away', () => {
    ports.write(0xe4, 4, 0xfedcb123);
    expect(flushed).toEqual([0xfedcb000]);
  });

  it('drives interrupt lines', () => {
    ports.write(0x2000 + 14, 1, 1);
    ports.write(0x2000 + 14, 1, 0);
    expect(pins).toEqual([
      [14, true],
      [14, false],
    ]);
  });

  it('has memory-mapped bytes', () => {
    mmio.write(TEST_MEMORY_GPA + 8, 8, 0x44332211, 0x88776655);
    expect([mmio.read(TEST_MEMORY_GPA + 9, 2), mmio.read(TEST_MEMORY_GPA + 8, 8), mmio.readHi]).toEqual([
      0x3322, 0x44332211, 0x88776655,
    ]);
  });
});

describe('the firmware configuration', () => {
  const ports = new PortBus();
  ports.claim(0x510, 2, new FwCfg(0x123456789000, 3, 4), 2);
  const item = (selector: number, bytes: number): number[] => {
    ports.write(0x510, 2, selector);
    return Array.from({ length: bytes }, () => ports.read(0x511, 1));
  };

  // biome-ignore format: a table
  it.each([
    ['signature',       0x00, [0x51, 0x45, 0x4d, 0x55]],
    ['identity',        0x01, [1, 0, 0, 0]],
    ['amount of RAM',   0x03, [0x00, 0x90, 0x78, 0x56, 0x34, 0x12, 0, 0]],
    ['number of CPUs',  0x05, [3, 0]],
    ['most CPUs',       0x0f, [4, 0]],
    ['file directory',  0x19, [0, 0, 0, 0]],
    ['unknown item',    0x77, [0, 0]],
  ])('tells the %s', (_, selector, bytes) => {
    expect(item(selector, bytes.length)).toEqual(bytes);
    expect(item(selector, bytes.length + 2).slice(-2)).toEqual([0, 0]);
  });
});
