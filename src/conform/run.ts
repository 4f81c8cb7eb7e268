/**
 * Replays a recorded scenario: the recording machine's setup, then op by op what its VMM and guest did, on our host
 * memory, MMU and CPU. Input is the start (memory, slots, parameters, machine) and the ops' texts; nothing that the
 * kernel answered.
 */
import { Tracer } from '../trace/tracer.ts';
import type { Bugs, Policy } from '../vm/vm.ts';
import { eventForms } from './entry-form.ts';
import type { Machine } from './machine.ts';
import { Observer } from './observer.ts';
import type { OpResult, Recording, Script } from './recording.ts';
import { slotTables } from './slot-tables.ts';
import { parseOp, ScenarioError } from './scenario.ts';
import { type GuestOp, type GuestOutput, ScriptedGuest } from './scripted-guest.ts';
import { type HostOp, type HostOutput, Vmm } from './vmm.ts';

/** Those that are for the current vCPU. */
const GUEST_OPS: ReadonlySet<string> = new Set<GuestOp['kind']>([
  'r',
  'w',
  'xchg',
  'x',
  'nop',
  'wpte',
  'invlpg',
  'cr3',
  'l2',
  'l1',
  'cr4',
  'cr0',
  'vcpu',
  'translate',
  'immediate',
  'prefault',
  'ringget',
]);

/** Tracepoints that the recorder doesn't switch on. */
const RING_EVENTS = 'kvm_dirty_ring_';

export interface RunOptions {
  /** Instead of Linux 6.1's. */
  readonly policy?: Policy;
  readonly afterOp?: (run: ScriptRun, op: OpResult) => void;
}

/**
 * Runs a script on a machine. The result has the form of a recording. Throws a `ScenarioError` that names the op where the
 * recorder would give up.
 */
export function runScript(script: Script, machine: Machine, options: RunOptions = {}): Recording {
  const run = new ScriptRun(script, machine, options.policy);
  const results = script.results.map(({ n, op }) => {
    const result = performNamed(run, n, op);
    options.afterOp?.(run, result);
    return result;
  });
  return { ...script, complete: true, results };
}

function performNamed(run: ScriptRun, n: number, op: string): OpResult {
  try {
    return run.perform(n, op);
  } catch (error) {
    if (error instanceof ScenarioError) throw new ScenarioError(`op ${n} (${op.slice(0, 60)}): ${error.message}`);
    throw error;
  }
}

export class ScriptRun {
  readonly vmm: Vmm;
  private readonly trace = new Tracer({ keepAll: true });
  private readonly guest: ScriptedGuest;
  private readonly observer: Observer;

  constructor(script: Script, machine: Machine, policy?: Policy, bugs?: Bugs) {
    this.vmm = new Vmm(script, machine, this.trace, policy, bugs);
    this.guest = new ScriptedGuest(script, machine, this.vmm);
    this.observer = new Observer(this.vmm.vm, (gfn) => this.vmm.hostPfn(gfn));
    this.observer.stats();
    this.trace.on = true;
  }

  /** Performs one op and tells what it did. */
  perform(n: number, text: string): OpResult {
    const out: HostOutput & GuestOutput = { res: {}, mmio: [] };
    const op = parseOp(text);
    this.trace.clear();
    if (GUEST_OPS.has(op.kind)) this.guest.perform(op as GuestOp, out);
    else this.vmm.perform(op as HostOp, out);
    const state = this.observer.state(this.guest.vcpu);
    const events = eventForms(this.trace, (sptep) => this.observer.place(sptep)).filter(
      ({ name }) => !name.startsWith(RING_EVENTS),
    );
    const slots = op.kind === 'rmaps' ? slotTables(this.vmm.vm.mmu, (sptep) => this.observer.place(sptep)) : undefined;
    this.observer.forget();
    const stats = this.observer.stats();
    const { res, mmio, bitmap, slot, args, ring } = out;
    return {
      n,
      op: text,
      ...(args ? { args } : {}),
      ...(Object.keys(res).length ? { res: res } : {}),
      ...(mmio.length ? { mmio } : {}),
      ...(bitmap ? { bitmap } : {}),
      ...(slot ? { slot } : {}),
      ...(ring ? { ring } : {}),
      ...(slots ? { slots } : {}),
      events,
      ...(stats ? { stats } : {}),
      ...(state ? { state } : {}),
    };
  }
}
