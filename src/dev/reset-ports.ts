/**
 * The old ways to reset a PC. The keyboard controller (ports 0x60 and 0x64) is not there but for its reset line: its status says
 * "output full, input empty", so that a driver which looks for one gives up at once and one that only wants to pulse the reset
 * line need not wait. Port 0x92 has the fast A20 gate and the fast reset. All are 1 byte wide.
 */
import type { PortDevice } from './bus.ts';
import { type PowerState, RESET } from './power.ts';

export const KEYBOARD_DATA_PORT = 0x60;
export const KEYBOARD_COMMAND_PORT = 0x64;
export const SYSTEM_CONTROL_PORT = 0x92;

const STATUS_NOBODY = 0x01;
/** Commands 0xf0 to 0xff pulse output lines; line 0 is the processor's reset, active when its bit is 0. */
const PULSE = 0xf0;
const A20_OPEN = 0x02;

export class KeyboardStub implements PortDevice {
  private readonly power: PowerState;

  constructor(power: PowerState) {
    this.power = power;
  }

  portRead(port: number): number {
    return port === KEYBOARD_COMMAND_PORT ? STATUS_NOBODY : 0xff;
  }

  portWrite(port: number, _bytes: number, value: number): void {
    if (port === KEYBOARD_COMMAND_PORT && (value & PULSE) === PULSE && (value & 1) === 0) this.power.ask(RESET);
  }
}

export class SystemControl implements PortDevice {
  private readonly power: PowerState;

  constructor(power: PowerState) {
    this.power = power;
  }

  portRead(): number {
    return A20_OPEN; // always
  }

  portWrite(_port: number, _bytes: number, value: number): void {
    if (value & 1) this.power.ask(RESET);
  }
}
