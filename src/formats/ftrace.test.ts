import { describe, expect, it } from 'vitest';
import { type EventLog, VMM } from '../trace/event-log.ts';
import {
  TP_ENTRY,
  TP_EXIT,
  TP_FAST_PAGE_FAULT,
  TP_GET_PAGE,
  TP_INJ_EXCEPTION,
  TP_PAGE_FAULT,
  TP_PAGETABLE_WALK,
  TP_SET_SPTE,
  TP_UNMAP_HVA_RANGE,
  TRACEPOINTS,
} from '../trace/tracepoints.ts';
import { Tracer } from '../trace/tracer.ts';
import { ftraceText } from './ftrace.ts';
import { eventLog } from './testing/event-log.ts';

function logOf(...records: [id: number, ...words: number[]][]): EventLog {
  const tracer = new Tracer({ keepAll: true, capacity: 2 });
  for (const [id, a, b, c, d, e, f, g, h, i, j, k] of records) tracer.emit(id, a, b, c, d, e, f, g, h, i, j, k);
  const groups = [{ first: 0, timeNs: 1_234_567_890, vcpu: 0, name: 'write fault', gfn: 5 }];
  return { name: 'hand', vcpus: 1, tracer, groups, counters: [], tableBasePfn: 1 << 29 };
}
const text = (log: EventLog): string => [...ftraceText(log)].join('');
const linesOf = (log: EventLog): string[] =>
  text(log)
    .trimEnd()
    .split('\n')
    .filter((line) => !line.startsWith('#'));

/** TASK-PID [CPU] flags seconds.micros: event: fields */
const LINE = /^ *(\S+)-(\d+) +\[(\d{3})\] ([.\w]{5}) +(\d+)\.(\d{6}): (\w+): (.*)$/;

describe('ftrace text', () => {
  it("begins as the kernel's does", () => {
    expect(text(logOf()).split('\n').slice(0, 12)).toEqual([
      '# tracer: nop',
      '#',
      '# entries-in-buffer/entries-written: 0/0   #P:2',
      '#',
      '#                                _-----=> irqs-off/BH-disabled',
      '#                               / _----=> need-resched',
      '#                              | / _---=> hardirq/softirq',
      '#                              || / _--=> preempt-depth',
      '#                              ||| / _-=> migrate-disable',
      '#                              |||| /     delay',
      '#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION',
      '#              | |         |   |||||     |         |',
    ]);
  });

  it('prints a line for each record, 100 ns of virtual time apart', () => {
    const walk: [number, ...number[]] = [TP_PAGETABLE_WALK, 0x1000, 0, 2];
    const lines = linesOf(logOf(...Array.from({ length: 12 }, () => walk)));
    expect(lines).toHaveLength(12);
    expect(lines[0]).toBe(
      '           vcpu0-1001    [000] .....     1.234568: kvm_mmu_pagetable_walk: addr 1000 pferr 2 W',
    );
    expect(lines[11]).toContain(' 1.234569: ');
  });

  // biome-ignore format: a table
  it.each<[string, [number, ...number[]], string]>([
    ['a new page',          [TP_GET_PAGE, 0, 0, 0x1784, 0, 0, 1],
      'kvm_mmu_get_page: sp gen 0 gfn 0 l4 8-byte q0 direct wux nxe ad root 0 sync new'],
    ['a page found',        [TP_GET_PAGE, 3, 0xabc, 0x10831 | (2 << 8), 2, 1, 0],
      'kvm_mmu_get_page: sp gen 3 gfn abc l1 4-byte q1 w-- invalid !nxe !ad root 2 unsync existing'],
    ['a fault',             [TP_PAGE_FAULT, 0, 0, 0, 0x1fb000, 0, 7, 1],
      'kvm_page_fault: vcpu 0 rip 0x0 address 0x00000000001fb000 error_code 0x100000007'],
    ['a fast fault',        [TP_FAST_PAGE_FAULT, 0, 0x1fb000, 0, 7, 0, (5 << 9) | 3, 0, 0, 0x67, 1, 4],
      'fast_page_fault: vcpu 0 gva 1fb000 error_code P|W|U sptep 0000020000005018 old 0 new 100000067 spurious 0 fixed 1'],
    ['a fault not a fast one', [TP_FAST_PAGE_FAULT, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 5],
      'fast_page_fault: vcpu 1 gva 0 error_code  sptep 0000020000000000 old 0x1 new 1 spurious 1 fixed 0'],
    ['an entry set',        [TP_SET_SPTE, 0x200, 0xe67, 1, (1 << 9) | 1, 2, 1, 0, 1],
      'kvm_mmu_set_spte: gfn 200 spte 100000e67 (rw-u) level 2 at 20000001008'],
    ['an exit',             [TP_EXIT, 0x400, 0x10, 0, 7, 1, 0x2000, 0, 1],
      'kvm_exit: vcpu 1 reason npf rip 0x10 info1 0x0000000100000007 info2 0x0000000000002000 intr_info 0x00000000 error_code 0x00000000'],
    ['an entry that ends at once', [TP_ENTRY, 0, 0x10, 0, 1], 'kvm_entry: vcpu 0, rip 0x10[immediate exit]'],
    ['an exception',        [TP_INJ_EXCEPTION, 14, 1, 2, 1], 'kvm_inj_exception: #PF (0x2) [reinjected]'],
    ['an unknown one',      [TP_INJ_EXCEPTION, 99, 0, 0, 0], 'kvm_inj_exception: 0x63'],
    ['a notifier',          [TP_UNMAP_HVA_RANGE, 0, 0x4000, 0x1000, 0x4000],
      'kvm_unmap_hva_range: mmu notifier unmap range: 0x00400000000000 -- 0x00400000001000'],
  ])('prints %s as the kernel does', (_what, record, expected) => {
    const [, , , , , , , name, fields] = LINE.exec(linesOf(logOf(record))[0]) ?? [];
    expect(`${name}: ${fields}`).toBe(expected);
  });

  it('holds every tracepoint to the form of a line, with time never running backwards', () => {
    const log = eventLog(1);
    const lines = linesOf(log).map((line) => LINE.exec(line));
    expect(lines).toHaveLength(log.tracer.count);
    expect(new Set(lines.map((line) => line?.[7]))).toEqual(new Set(TRACEPOINTS.map(({ name }) => name)));
    let last = 0;
    lines.forEach((line, i) => {
      const now = Number(`${line?.[5]}${line?.[6]}`);
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
      const vcpu = log.groups[i].vcpu;
      expect([line?.[1], line?.[2], line?.[3]]).toEqual(
        vcpu === VMM ? ['penumbra', '1000', '002'] : [`vcpu${vcpu}`, `100${vcpu + 1}`, `00${vcpu}`],
      );
    });
  });

  it('refuses a ring that has lost records', () => {
    const tracer = new Tracer({ capacity: 1 });
    tracer.emit(TP_ENTRY);
    tracer.emit(TP_ENTRY);
    expect(() => text({ ...logOf(), tracer })).toThrow('the ring has lost 1 records');
  });
});
