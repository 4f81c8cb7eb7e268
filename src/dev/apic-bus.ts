/**
 * What connects the local APICs and the IOAPIC: messages with a destination in one direction, the end of level-triggered
 * interrupts in the other.
 */
import type { IoApic } from './ioapic.ts';
import type { LocalApic } from './local-apic.ts';

export const DELIVER_FIXED = 0;
export const DELIVER_LOWEST = 1;
export const DELIVER_SMI = 2;
export const DELIVER_NMI = 4;
export const DELIVER_INIT = 5;
export const DELIVER_SIPI = 6;
export const DELIVER_EXTINT = 7;

/** A physical destination: everybody. */
export const TO_ALL = -1;

export class ApicBus {
  readonly apics: LocalApic[] = [];
  ioapic: IoApic | null = null;

  /** Sends a message to those it names; returns whether somebody took it. `except`: who doesn't hear it, or null. */
  send(
    dest: number,
    logical: boolean,
    mode: number,
    vector: number,
    level: boolean,
    except: LocalApic | null,
  ): boolean {
    if (mode === DELIVER_LOWEST) return this.sendToLowest(dest, logical, vector, level, except);
    let taken = false;
    for (const apic of this.apics) {
      if (apic !== except && apic.matches(dest, logical) && apic.accept(mode, vector, level)) taken = true;
    }
    return taken;
  }

  /** Of those addressed, the one that does the least important work gets it; of equals the first. */
  private sendToLowest(
    dest: number,
    logical: boolean,
    vector: number,
    level: boolean,
    except: LocalApic | null,
  ): boolean {
    let chosen: LocalApic | null = null;
    for (const apic of this.apics) {
      if (apic === except || !apic.isSoftwareEnabled() || !apic.matches(dest, logical)) continue;
      if (chosen === null || apic.processorPriority() < chosen.processorPriority()) chosen = apic;
    }
    return chosen !== null && chosen.accept(DELIVER_FIXED, vector, level);
  }

  /** A level-triggered vector's handler has ended on some processor. */
  broadcastEoi(vector: number): void {
    this.ioapic?.eoi(vector);
  }
}
