import { beforeEach, describe, expect, it } from 'vitest';
import { AcpiPm } from './acpi-pm.ts';
import { ApicBus } from './apic-bus.ts';
import { VirtualClock } from './clock.ts';
import { IrqLine, NO_IRQ } from './irq.ts';
import { PciHost } from './pci/pci-host.ts';
import { POWER_OFF, PowerState, RUNNING } from './power.ts';
import { InitLine } from './reset-ports.ts';

let clock: VirtualClock;
let power: PowerState;
let sci: IrqLine;
let pm: AcpiPm;

beforeEach(() => {
  clock = new VirtualClock();
  power = new PowerState();
  sci = new IrqLine(NO_IRQ, 9);
  pm = new AcpiPm(clock, sci, power);
});

describe('the power management block', () => {
  it('counts 3,579,545 times a second', () => {
    clock.advanceTo(1e9);
    expect(pm.portRead(0x608, 4)).toBe(3579545);
    expect(pm.portRead(0x609, 1)).toBe((3579545 >> 8) & 0xff);
    clock.advanceTo(1300e9);
    expect(pm.portRead(0x608, 4)).toBe((1300 * 3579545) % 2 ** 32);
  });

  it('is in ACPI mode, whatever is written', () => {
    expect(pm.portRead(0x604, 2)).toBe(1);
    pm.portWrite(0x604, 2, 0);
    expect(pm.portRead(0x604, 2)).toBe(1);
  });

  it('switches off at SLP_EN with the sleep type of S5 only', () => {
    pm.portWrite(0x604, 2, 5 << 10);
    pm.portWrite(0x604, 2, (1 << 13) | (1 << 10));
    expect(power.request).toBe(RUNNING);
    pm.portWrite(0x604, 2, (1 << 13) | (5 << 10));
    expect(power.request).toBe(POWER_OFF);
  });

  it('tells of the power button by the SCI, until the status is cleared', () => {
    pm.pressPowerButton();
    expect(sci.level).toBe(false);
    pm.portWrite(0x602, 2, 0x100);
    expect([sci.level, pm.portRead(0x600, 4)]).toEqual([true, 0x01000100]);
    pm.portWrite(0x600, 2, 0x100);
    expect([sci.level, pm.portRead(0x600, 2)]).toEqual([false, 0]);
  });

  it('tells of the timer when its highest bit changes', () => {
    pm.portWrite(0x602, 2, 1);
    clock.advanceTo(599e9);
    expect(sci.level).toBe(false);
    clock.advanceTo(600e9);
    expect([sci.level, pm.portRead(0x600, 2)]).toEqual([true, 1]);
    pm.portWrite(0x600, 2, 1);
    expect(sci.level).toBe(false);
    clock.advanceTo(1200e9);
    expect(sci.level).toBe(true);
  });
});

describe('PCI configuration space', () => {
  it('keeps the address, and nobody is in an empty slot', () => {
    const host = new PciHost(power, new InitLine(new ApicBus()), NO_IRQ, NO_IRQ);
    host.portWrite(0xcf8, 4, 0x80000800);
    expect(host.portRead(0xcf8, 4) >>> 0).toBe(0x80000800);
    expect([host.portRead(0xcfc, 4) >>> 0, host.portRead(0xcfe, 2) & 0xffff]).toEqual([0xffffffff, 0xffff]);
    host.portWrite(0xcfb, 1, 1);
    expect([host.portRead(0xcf8, 4) >>> 0, power.request]).toEqual([0x80000800, RUNNING]);
  });
});
