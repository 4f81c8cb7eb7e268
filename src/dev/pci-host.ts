/**
 * The way to PCI configuration space, in which there are no devices, and the reset register that lies in its address port. Claims
 * ports 0xcf8 to 0xcff, up to 4 bytes wide.
 */
import type { PortDevice } from './bus.ts';
import { type PowerState, RESET } from './power.ts';

export const PCI_PORT = 0xcf8;
export const PCI_PORTS = 8;
export const RESET_PORT = 0xcf9;
/** What the FADT tells the guest to write to the reset port: a full reset, now. */
export const RESET_VALUE = 0x06;

const RESET_NOW = 0x04;

export class PciHost implements PortDevice {
  address = 0;
  resetControl = 0;
  private readonly power: PowerState;

  constructor(power: PowerState) {
    this.power = power;
  }

  portRead(port: number, bytes: number): number {
    if (port === PCI_PORT && bytes === 4) return this.address;
    if (port === RESET_PORT && bytes === 1) return this.resetControl;
    return -1;
  }

  portWrite(port: number, bytes: number, value: number): void {
    if (port === PCI_PORT && bytes === 4) {
      this.address = value | 0;
    } else if (port === RESET_PORT && bytes === 1) {
      this.resetControl = value & ~RESET_NOW;
      if (value & RESET_NOW) this.power.ask(RESET);
    }
  }
}
