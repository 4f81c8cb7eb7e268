import { describe, expect, it } from 'vitest';
import { MemoryDisk } from './memory-disk.ts';
import { BUFFERS_GPA, SLOT, TestDriver } from './testing/driver.ts';
import { VirtioBlk } from './virtio-blk.ts';
import { VirtioRng } from './virtio-rng.ts';

const rng = (): TestDriver => new TestDriver((host) => new VirtioRng(host, 7));
const BUFFER = { gpa: BUFFERS_GPA, bytes: 64, write: true };

describe('a virtio device on the PCI bus', () => {
  it('has the IDs of a modern device, and the host bridge is beside it', () => {
    const driver = rng();
    expect(driver.readConfig(0, 4)).toBe(0x10441af4);
    expect(driver.readConfig(8, 1)).toBe(1);
    driver.ports.write(0xcf8, 4, 0x80000000);
    expect(driver.ports.read(0xcfc, 4)).toBe(0x12378086);
    for (const address of [0x80001000, 0x80001900, 0x80011800, 0x00001800]) {
      driver.ports.write(0xcf8, 4, address);
      expect(driver.ports.read(0xcfc, 4), address.toString(16)).toBe(0xffffffff);
    }
  });

  it('tells the size of its BARs, and can be moved', () => {
    const driver = rng();
    const before = driver.readConfig(0x10, 4);
    driver.writeConfig(0x10, 4, 0xffffffff);
    expect(driver.readConfig(0x10, 4)).toBe(0xffffc000);
    driver.writeConfig(0x10, 4, 0xd0000000);
    expect(driver.start()).toBe(true);
    expect(driver.host.mmioRead(0xd0000012 - 0xc0000000, 2)).toBe(1);
    expect(driver.host.mmioRead(before + 0x12 - 0xc0000000, 2)).toBe(-1);
  });

  it('decodes nothing before the guest allows it', () => {
    const driver = rng();
    expect(driver.read(0x12, 2)).toBe(0xffffffff);
    driver.writeConfig(4, 2, 2);
    expect(driver.read(0x12, 2)).toBe(1);
  });

  it('has a capability for each structure', () => {
    const driver = new TestDriver((host) => new VirtioBlk(host, new MemoryDisk(new Uint8Array(1024)), ''));
    const kinds = driver.capabilities(9).map((at) => driver.readConfig(at + 3, 1));
    expect(new Set(kinds)).toEqual(new Set([1, 2, 3, 4, 5]));
    expect(driver.capabilities(0x11)).toHaveLength(1);
  });

  it('insists on version 1, and on features that it has', () => {
    expect(rng().start(0, { featuresHi: 0 })).toBe(false);
    expect(rng().start(1)).toBe(false);
    expect(rng().start(0, { featuresHi: 3 })).toBe(false);
    expect(rng().start(3 << 28)).toBe(true);
  });

  it('can be driven through configuration space alone', () => {
    const driver = rng();
    const window = driver.capabilities(9).find((at) => driver.readConfig(at + 3, 1) === 5)!;
    driver.writeConfig(window + 4, 1, 0);
    driver.writeConfig(window + 8, 4, 0x14);
    driver.writeConfig(window + 12, 4, 1);
    driver.writeConfig(window + 16, 4, 3);
    expect(driver.readConfig(window + 16, 1)).toBe(3);
    driver.writeConfig(window + 8, 4, 0xfffffff0);
    driver.writeConfig(window + 16, 4, 3);
    driver.writeConfig(window + 4, 1, 200);
    expect(driver.readConfig(window + 16, 4)).toBe(3);
  });

  it.each([0, 1 << 28, 1 << 29, 3 << 28])('gives buffers back and interrupts by MSI-X (features %i)', (features) => {
    const driver = rng();
    driver.start(features);
    for (let i = 0; i < 40; i++) {
      expect(driver.request(0, [BUFFER])).toBe(64);
      // With event indexes the driver of this test asks once only, by used_event 0.
      expect(driver.takeInterrupt()).toBe(features & (1 << 29) && i > 0 ? -1 : 1);
    }
    expect(new Set(driver.memory.bytes.subarray(BUFFERS_GPA, BUFFERS_GPA + 64)).size).toBeGreaterThan(30);
  });

  it('keeps a masked message until it is unmasked', () => {
    const driver = rng();
    driver.start();
    driver.write(16 + 12, 4, 1, 1);
    driver.request(0, [BUFFER]);
    expect(driver.takeInterrupt()).toBe(-1);
    expect(driver.read(0x800, 4, 1)).toBe(2);
    driver.write(16 + 12, 4, 0, 1);
    expect(driver.takeInterrupt()).toBe(1);
    const [capability] = driver.capabilities(0x11);
    driver.writeConfig(capability + 2, 2, 0xc000);
    driver.request(0, [BUFFER]);
    expect(driver.takeInterrupt()).toBe(-1);
    driver.writeConfig(capability + 2, 2, 0x8000);
    expect(driver.takeInterrupt()).toBe(1);
  });

  it('holds INTA without MSI-X until its status is read', () => {
    const driver = rng();
    driver.start(0, { msix: false });
    driver.request(0, [BUFFER]);
    expect(driver.pins.at(-1)).toEqual([16 + SLOT, true]);
    expect([driver.picPins.at(-1), driver.readConfig(0x3c, 1)]).toEqual([[11, true], 11]);
    expect(driver.readConfig(6, 1) & 8).toBe(8);
    driver.writeConfig(4, 2, 0x406);
    expect(driver.pins.at(-1)).toEqual([16 + SLOT, false]);
    expect(driver.picPins.at(-1)).toEqual([11, false]);
    driver.writeConfig(4, 2, 6);
    expect(driver.pins.at(-1)).toEqual([16 + SLOT, true]);
    expect(driver.read(0x1000, 1)).toBe(1);
    expect(driver.pins.at(-1)).toEqual([16 + SLOT, false]);
    expect(driver.read(0x1000, 1)).toBe(0);
  });

  it('shares its wires with other slots', () => {
    const { host, pins, picPins } = rng();
    // 1, 3 and 9 share an input of the PICs, 1 and 9 a pin of the IOAPIC.
    for (const slot of [1, 3, 9]) host.setIntx(slot, true);
    pins.length = 0;
    picPins.length = 0;
    for (const slot of [1, 9, 3]) host.setIntx(slot, false);
    expect(pins).toEqual([
      [17, true],
      [17, false],
      [19, false],
    ]);
    expect(picPins).toEqual([
      [11, true],
      [11, true],
      [11, false],
    ]);
  });

  it('stays silent when the driver wants no interrupts', () => {
    const driver = rng();
    driver.start();
    driver.memory.view.setUint16(driver.rings(0).avail, 1, true);
    driver.request(0, [BUFFER]);
    expect(driver.takeInterrupt()).toBe(-1);
  });

  it('follows an indirect table where that was agreed on', () => {
    const driver = rng();
    driver.start(1 << 28);
    const table = BUFFERS_GPA + 0x1000;
    driver.setDescriptor(table, 0, { gpa: BUFFERS_GPA, bytes: 10, write: true }, 1);
    driver.setDescriptor(table, 1, { gpa: BUFFERS_GPA + 100, bytes: 10, write: true }, null);
    driver.setDescriptor(driver.rings(0).desc, 5, { gpa: table, bytes: 32 }, null, 4);
    driver.makeAvailable(0, 5);
    driver.notify(0);
    expect(driver.takeUsed(0)).toEqual([{ head: 5, bytes: 20 }]);
  });

  it('starts anew after a reset', () => {
    const driver = rng();
    driver.start();
    driver.request(0, [BUFFER]);
    driver.start();
    expect(driver.request(0, [BUFFER])).toBe(64);
    driver.write(0x14, 1, 0);
    expect(driver.status).toBe(0);
    driver.notify(0);
    expect(driver.takeUsed(0)).toEqual([]);
  });
});

describe('a malformed chain', () => {
  /** Asks for a reset instead of doing anything with it. */
  const expectBroken = (driver: TestDriver): void => {
    driver.notify(0);
    expect(driver.status & 0x40).toBe(0x40);
    expect(driver.takeInterrupt()).toBe(0);
    expect(driver.takeUsed(0)).toEqual([]);
    expect(driver.memory.isOverrun).toBe(false);
    driver.start();
    expect(driver.request(0, [BUFFER])).toBe(64);
  };

  it.each([
    ['points behind the end of memory', { gpa: 2 ** 20 - 8, bytes: 16, write: true }],
    ['points far beyond memory', { gpa: 2 ** 63, bytes: 16, write: true }],
    ['is longer than any', { gpa: 0, bytes: 2 ** 32 - 1, write: true }],
  ])('%s', (_what, piece) => {
    const driver = rng();
    driver.start();
    driver.add(0, [piece]);
    expectBroken(driver);
  });

  it('is a loop', () => {
    const driver = rng();
    driver.start();
    const { desc } = driver.rings(0);
    driver.setDescriptor(desc, 0, { ...BUFFER, bytes: 0 }, 1);
    driver.setDescriptor(desc, 1, { ...BUFFER, bytes: 0 }, 0);
    driver.makeAvailable(0, 0);
    expectBroken(driver);
  });

  it('goes on outside the table', () => {
    const driver = rng();
    driver.start();
    driver.setDescriptor(driver.rings(0).desc, 0, BUFFER, 16);
    driver.makeAvailable(0, 0);
    expectBroken(driver);
  });

  it('begins outside the table', () => {
    const driver = rng();
    driver.start();
    driver.makeAvailable(0, 60000);
    expectBroken(driver);
  });

  it('has what is to be read behind what is to be written', () => {
    const driver = rng();
    driver.start();
    driver.add(0, [BUFFER, { ...BUFFER, write: false }]);
    expectBroken(driver);
  });

  it.each([
    ['without agreement', 0, 0, 32],
    ['of half a descriptor', 1 << 28, 0, 24],
    ['of nothing', 1 << 28, 0, 0],
    ['with a successor', 1 << 28, 1, 32],
    ['outside memory', 1 << 28, 0, 2 ** 31],
  ])('is an indirect table %s', (_what, features, flags, bytes) => {
    const driver = rng();
    driver.start(features);
    driver.setDescriptor(driver.rings(0).desc, 0, { gpa: BUFFERS_GPA, bytes }, null, 4 | flags);
    driver.memory.view.setUint32(BUFFERS_GPA, 2 ** 31, true);
    driver.memory.view.setUint32(BUFFERS_GPA + 8, 1, true);
    driver.makeAvailable(0, 0);
    expectBroken(driver);
  });

  it('is an indirect table in an indirect table', () => {
    const driver = rng();
    driver.start(1 << 28);
    driver.setDescriptor(BUFFERS_GPA, 0, { gpa: BUFFERS_GPA, bytes: 16 }, null, 4);
    driver.setDescriptor(driver.rings(0).desc, 0, { gpa: BUFFERS_GPA, bytes: 16 }, null, 4);
    driver.makeAvailable(0, 0);
    expectBroken(driver);
  });

  it('claims that more wait than fit', () => {
    const driver = rng();
    driver.start();
    driver.memory.view.setUint16(driver.rings(0).avail + 2, 17, true);
    expectBroken(driver);
  });

  it('comes to rings that are nowhere', () => {
    const driver = rng();
    driver.start();
    driver.device.queues[0].address[2] = 2 ** 31;
    driver.notify(0);
    expect(driver.status & 0x40).toBe(0x40);
  });
});

describe('a ring that writes itself', () => {
  it('is served in turns', () => {
    const driver = rng();
    driver.start();
    // Random numbers land on the index of the available ring: there is always more.
    const { avail, desc } = driver.rings(0);
    for (let i = 0; i < 16; i++) driver.setDescriptor(desc, i, { gpa: avail + 2, bytes: 1, write: true }, null);
    driver.makeAvailable(0, 0);
    driver.notify(0);
    for (let turn = 0; turn < 100; turn++) driver.clock.advanceTo(driver.clock.now + 1000);
    expect(driver.device.queues[0].usedIdx).toBeLessThan(100 * 17);
  });
});
