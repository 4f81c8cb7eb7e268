/**
 * How a guest ends its machine. Devices leave a request here; the vCPU loop looks at it after each exit. The first request counts,
 * until the loop has taken it.
 */
export const RUNNING = 0;
export const RESET = 1;
export const POWER_OFF = 2;
/** The debug-exit device: `status` is the exit status of the whole run. */
export const DEBUG_EXIT = 3;
/** Firmware asks for the kernel: after a reset, nothing else has said where to go on. */
export const BOOT = 4;

export class PowerState {
  request = RUNNING;
  status = 0;

  ask(request: number, status = 0): void {
    if (this.request !== RUNNING) return;
    this.request = request;
    this.status = status;
  }

  /** Back to RUNNING, for a machine that is reset rather than ended. */
  clear(): void {
    this.request = RUNNING;
    this.status = 0;
  }
}
