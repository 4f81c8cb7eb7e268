/**
 * The ways to reset a PC's processors, all 1 byte wide. What they pulse is INIT#, which processors answer as the message of that name:
 * memory and devices stay. The whole machine is reset by the PCI host's register (`pci/pci-host.ts`), which can do both.
 *
 * Of the keyboard controller (ports 0x60 and 0x64) only this is there: its status says "output full, input empty", so that a driver which
 * looks for a keyboard gives up at once, and one that only wants the reset line need not wait.
 */
import { type ApicBus, DELIVER_INIT } from './apic-bus.ts';
import type { PortDevice } from './bus.ts';
import { BOOT, type PowerState } from './power.ts';

export const KEYBOARD_DATA_PORT = 0x60;
export const KEYBOARD_COMMAND_PORT = 0x64;
export const SYSTEM_CONTROL_PORT = 0x92;
export const LOADER_PORT = 0x560;

const STATUS_NOBODY = 0x01;
const READ_OUTPUT_PORT = 0xd0;
const WRITE_OUTPUT_PORT = 0xd1;
/** Commands 0xf0 to 0xff pulse output lines; line 0 is the processor's reset, active when its bit is 0. */
const PULSE = 0xf0;
/** The output port at rest: no reset, A20 open, clock and data of the keyboard high. */
const OUTPUT_PORT = 0xcf;
const NOTHING = 0xff;
const INIT_NOW = 0x01;
const A20_OPEN = 0x02;

/** The wire to all processors. */
export class InitLine {
  private readonly bus: ApicBus;

  constructor(bus: ApicBus) {
    this.bus = bus;
  }

  pulse(): void {
    for (const apic of this.bus.apics) apic.accept(DELIVER_INIT, 0, false);
  }
}

export class KeyboardStub implements PortDevice {
  /** What the data port shows. */
  data = NOTHING;
  /** The next byte of data is for the output port. */
  takesOutputPort = false;
  private readonly init: InitLine;

  constructor(init: InitLine) {
    this.init = init;
  }

  portRead(port: number): number {
    if (port === KEYBOARD_COMMAND_PORT) return STATUS_NOBODY;
    const { data } = this;
    this.data = NOTHING;
    return data;
  }

  portWrite(port: number, _bytes: number, value: number): void {
    if (port === KEYBOARD_DATA_PORT) {
      if (this.takesOutputPort && (value & 1) === 0) this.init.pulse();
      this.takesOutputPort = false;
      return;
    }
    this.takesOutputPort = value === WRITE_OUTPUT_PORT;
    if (value === READ_OUTPUT_PORT) this.data = OUTPUT_PORT;
    else if ((value & PULSE) === PULSE && (value & 1) === 0) this.init.pulse();
  }
}

/** Port 0x92: the fast A20 gate, which is always open, and the fast reset, on the rise of its bit. */
export class SystemControl implements PortDevice {
  value = A20_OPEN;
  private readonly init: InitLine;

  constructor(init: InitLine) {
    this.init = init;
  }

  portRead(): number {
    return this.value;
  }

  portWrite(_port: number, _bytes: number, value: number): void {
    const rises = (value & ~this.value & INIT_NOW) !== 0;
    this.value = (value & INIT_NOW) | A20_OPEN;
    if (rises) this.init.pulse();
  }

  /** The reset of the whole machine; INIT leaves the bit as it is. */
  reset(): void {
    this.value = A20_OPEN;
  }
}

/** Our own: firmware (`vm/machine/firmware.ts`) asks for the kernel by writing anything. */
export class LoaderPort implements PortDevice {
  private readonly power: PowerState;

  constructor(power: PowerState) {
    this.power = power;
  }

  portRead(): number {
    return NOTHING;
  }

  portWrite(): void {
    this.power.ask(BOOT);
  }
}
