/**
 * How GDB lets a machine go on: `c` and `s` with an address or none, `C` and `S` with a signal, which a machine has no use for, and
 * `vCont` with an action for each thread, the first that fits it.
 */
import type { PcCpu } from '../vm/machine/pc-cpu.ts';

export interface Resume {
  /** The CPU that does one instruction; all stop then. */
  readonly steps: PcCpu | null;
  readonly goesOn: (cpu: PcCpu) => boolean;
  /** Where the current CPU is to go on, if not where it is. */
  readonly at: bigint | null;
}

/** Null: malformed, or nobody would run. `current`: the CPU of `c` and `s`. */
export function parseResume(text: string, cpus: readonly PcCpu[], current: PcCpu): Resume | null {
  return text.startsWith('vCont;') ? parseActions(text.slice(6), cpus, current) : parseOne(text, current);
}

function parseOne(text: string, current: PcCpu): Resume | null {
  const match = /^(?:[cs]([0-9a-fA-F]{1,16})?|[CS][0-9a-fA-F]{2}(?:;([0-9a-fA-F]{1,16}))?)$/.exec(text);
  if (match === null) return null;
  const address = match[1] ?? match[2];
  return {
    steps: text.charAt(0).toLowerCase() === 's' ? current : null,
    goesOn: () => true,
    at: address === undefined ? null : BigInt(`0x${address}`),
  };
}

function parseActions(text: string, cpus: readonly PcCpu[], current: PcCpu): Resume | null {
  const actions = new Map<PcCpu, 'c' | 's'>();
  for (const part of text.split(';')) {
    const match = /^(?:[cs]|[CS][0-9a-fA-F]{2})(?::(-1|[0-9a-fA-F]{1,4}))?$/.exec(part);
    if (match === null) return null;
    const thread: string | undefined = match[1];
    const action = part.charAt(0).toLowerCase() as 'c' | 's';
    const all = thread === undefined || thread === '-1' || thread === '0';
    const chosen = all ? cpus : cpus.filter(({ index }) => index + 1 === Number.parseInt(thread, 16));
    if (chosen.length === 0) return null;
    for (const cpu of chosen) if (!actions.has(cpu)) actions.set(cpu, action);
  }
  const stepping = cpus.filter((cpu) => actions.get(cpu) === 's');
  // Several that are to step: one is done first, and that stops all.
  const steps = stepping.includes(current) ? current : (stepping[0] ?? null);
  const goesOn = (cpu: PcCpu): boolean => actions.get(cpu) === 'c';
  return actions.size === 0 ? null : { steps, goesOn, at: null };
}
