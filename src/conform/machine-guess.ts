/**
 * The machine as far as a script alone gives it away, for one whose scenario nobody has: from memory, slots and the ops'
 * texts, never from what the kernel answered. What these can't tell (a shadow page limit, an initially-set log, a small
 * slot that was populated with zeros) may be wrong, and the replay then differs.
 */
import type { Machine } from './machine.ts';
import type { Script, SlotInfo } from './recording.ts';
import { parseOp } from './scenario.ts';

export function guessMachine(script: Script): Machine {
  const ops = script.results.map(({ op }) => parseOp(op));
  return {
    vcpus: Math.max(1, ...ops.map((op) => (op.kind === 'vcpu' ? op.vcpu + 1 : 1))),
    manual: ops.some((op) => op.kind === 'clearlog') ? 1 : 0,
    mmuPages: 0,
    ring: 0,
    nested: ops.some((op) => op.kind === 'l2'),
    unpopulated: script.slots.filter((slot) => looksUnpopulated(script, slot)).map((slot) => slot.id),
    writes: [],
  };
}

/** Small or transparently huge memory without a single word: populated slots have code or page tables in them. */
function looksUnpopulated(script: Script, slot: SlotInfo): boolean {
  if (slot.backing !== '4k' && slot.backing !== 'thp') return false;
  const start = BigInt(slot.gpa);
  const end = start + BigInt(slot.size);
  return !script.memory.some(([gpa]) => gpa >= start && gpa < end);
}
