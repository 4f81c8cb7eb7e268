/**
 * ACPI's fixed hardware: the PM1a event and control blocks and the power management timer. Claims 12 ports from 0x600: status and
 * enable (0x600, 0x602), control (0x604), timer (0x608), up to 4 bytes wide; the SCI is IRQ 9, a level. The machine starts in
 * ACPI mode, so there is no SMI command port. SLP_EN with S5's sleep type switches the power off.
 */
import type { PortDevice } from './bus.ts';
import type { TimerClient, VirtualClock } from './clock.ts';
import type { IrqLine } from './irq.ts';
import { POWER_OFF, type PowerState } from './power.ts';

export const PM1A_EVENT_PORT = 0x600;
export const PM1A_CONTROL_PORT = 0x604;
export const PM_TIMER_PORT = 0x608;
export const PM_PORTS = 12;
export const SCI_IRQ = 9;
/** The sleep type that the DSDT's \_S5 names. */
export const SLEEP_TYPE_S5 = 5;
export const PM_TIMER_HZ = 3579545;

const STATUS_TIMER = 1 << 0;
const STATUS_POWER_BUTTON = 1 << 8;
/** Timer, bus master, global, power button, sleep button, RTC, PCIe wake, wake: written as ones to clear. */
const STATUS_BITS = 0xc731;
const CONTROL_SCI_ENABLED = 1;
const CONTROL_SLEEP = 1 << 13;
/** The status bit of the timer is set whenever its bit 31 changes. */
const HALF_TURN = 2 ** 31;

export class AcpiPm implements PortDevice, TimerClient {
  status = 0;
  enable = 0;
  control = CONTROL_SCI_ENABLED;
  /** Half turns of the timer that the status bit has told of. */
  toldHalfTurns = 0;
  private readonly clock: VirtualClock;
  private readonly sci: IrqLine;
  private readonly power: PowerState;
  private readonly timer: number;

  constructor(clock: VirtualClock, sci: IrqLine, power: PowerState) {
    this.clock = clock;
    this.sci = sci;
    this.power = power;
    this.timer = clock.addTimer(this);
  }

  /** Host side: somebody presses the power button; an ACPI guest shuts down. */
  pressPowerButton(): void {
    this.status |= STATUS_POWER_BUTTON;
    this.update();
  }

  /** The timer runs on. */
  reset(): void {
    this.noteTimer();
    this.status = 0;
    this.enable = 0;
    this.control = CONTROL_SCI_ENABLED;
    this.update();
  }

  portRead(port: number, bytes: number): number {
    const at = port - PM1A_EVENT_PORT;
    this.noteTimer();
    const word = at < 4 ? this.status | (this.enable << 16) : at < 8 ? this.control : this.ticks() % 2 ** 32;
    return Math.floor(word / 2 ** ((at & 3) * 8)) % 2 ** (bytes * 8);
  }

  portWrite(port: number, bytes: number, value: number): void {
    this.noteTimer();
    for (let i = 0; i < bytes; i++) this.writeByte(port - PM1A_EVENT_PORT + i, (value >>> (i * 8)) & 0xff);
    this.update();
  }

  onTimer(): void {
    this.noteTimer();
    this.update();
  }

  private writeByte(at: number, byte: number): void {
    const shift = (at & 1) * 8;
    if (at < 2) this.status &= ~((byte << shift) & STATUS_BITS);
    else if (at < 4) this.enable = (this.enable & ~(0xff << shift)) | (byte << shift);
    else if (at < 6) this.writeControl((this.control & ~(0xff << shift)) | (byte << shift));
  }

  private writeControl(value: number): void {
    this.control = (value & ~CONTROL_SLEEP) | CONTROL_SCI_ENABLED;
    if (value & CONTROL_SLEEP && ((value >> 10) & 7) === SLEEP_TYPE_S5) this.power.ask(POWER_OFF);
  }

  private ticks(): number {
    return Math.floor((this.clock.now * PM_TIMER_HZ) / 1e9);
  }

  private noteTimer(): void {
    const halfTurns = Math.floor(this.ticks() / HALF_TURN);
    if (halfTurns === this.toldHalfTurns) return;
    this.toldHalfTurns = halfTurns;
    this.status |= STATUS_TIMER;
  }

  private update(): void {
    this.sci.set((this.status & this.enable) !== 0);
    if (this.enable & STATUS_TIMER) {
      this.clock.schedule(this.timer, Math.ceil(((this.toldHalfTurns + 1) * HALF_TURN * 1e9) / PM_TIMER_HZ));
    } else {
      this.clock.cancel(this.timer);
    }
  }
}
