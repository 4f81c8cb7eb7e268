/** Event logs for tests: every tracepoint, with fields that are drawn from a seed and lie within the kernel's types. */
import { Prng } from '../../base/prng.ts';
import { type EventGroup, type EventLog, VMM } from '../../trace/event-log.ts';
import { fieldWords, TRACEPOINTS } from '../../trace/tracepoints.ts';
import { Tracer } from '../../trace/tracer.ts';
import { KERNEL_EVENT_BY_ID } from '../kernel-events.ts';

/** What the kernel can print of a field: small numbers and symbols that it knows. */
const KNOWN_VALUES: Readonly<Record<string, readonly number[]>> = {
  len: [1, 2, 15],
  exit_reason: [0x4e, 0x7b, 0x7f, 0x400, 0x401],
  exception: [0, 13, 14, 99],
  type: [0, 1, 2, 3],
  flags: [0, 1, 3, 5, 9, 2],
  ret: [0, 1, 2, 3, 4, 5],
  u: [0, 1],
  pferr: [0, 1, 7, 31],
  error_code: [0, 2, 6, 29],
  level: [1, 2, 3],
};

export function eventLog(seed: number, rounds = 20): EventLog {
  const random = new Prng(seed);
  const tracer = new Tracer({ keepAll: true });
  const groups: EventGroup[] = [];
  let timeNs = 0;
  for (let i = 0; i < rounds; i++) {
    for (const { id, fields } of TRACEPOINTS) {
      const vcpu = random.pick([VMM, 0, 1]);
      timeNs += 100 + (random.chance(0.05) ? 5e9 : random.int(2e6));
      groups.push({ first: tracer.count, timeNs, vcpu, name: 'read fault', gfn: random.int(1000) });
      const words = fields.flatMap(([name, kind]) => {
        const bytes = KERNEL_EVENT_BY_ID.get(id)?.fields.find((field) => field.name === name)?.bytes ?? 4;
        const known = KNOWN_VALUES[name];
        if (known !== undefined) return [random.pick(known), ...Array(fieldWords(kind) - 1).fill(0)];
        if (kind === 'insn') return Array.from({ length: 4 }, () => random.next() | 0);
        const low = bytes === 1 ? random.int(2) : kind === 'sptep' ? random.int(1 << 24) : random.next() | 0;
        return fieldWords(kind) === 2 ? [low, random.chance(0.5) ? 0 : random.int(1 << 20)] : [low];
      });
      const [a, b, c, d, e, f, g, h, j, k, l] = words;
      tracer.emit(id, a, b, c, d, e, f, g, h, j, k, l);
    }
  }
  const counters = [{ timeNs: 1000, values: { pages_2m: 5, 'dirty pages of the round': 70000 } }];
  return { name: 'gäst', vcpus: 2, tracer, groups, counters, tableBasePfn: 1 << 29 };
}
