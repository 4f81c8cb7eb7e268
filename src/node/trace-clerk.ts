/** Notes when a running machine's trace records came: a group for each exit. */
import { TABLE_PFN_BASE } from '../mem/table-arena.ts';
import type { EventGroup, EventLog } from '../trace/event-log.ts';
import { Tracer } from '../trace/tracer.ts';
import type { Pc } from '../vm/machine/pc.ts';

export class TraceClerk {
  readonly tracer = new Tracer({ keepAll: true });
  private readonly name: string;
  private readonly groups: EventGroup[] = [];
  private vcpus = 1;

  /** `name`: the guest's. */
  constructor(name: string) {
    this.name = name;
    this.tracer.on = true;
    this.groups.push({ first: 0, timeNs: 0, vcpu: 0, name: 'start', gfn: -1 });
  }

  attach(pc: Pc): void {
    this.vcpus = pc.cpus.length;
    for (const { unit, index: vcpu } of pc.cpus) {
      const { onExit } = unit;
      unit.onExit = () => {
        onExit();
        const group = { first: this.tracer.count, timeNs: pc.nowNs, vcpu, name: 'page fault', gfn: -1 };
        if (group.first === this.groups.at(-1)?.first) this.groups.pop();
        this.groups.push(group);
      };
    }
  }

  log(): EventLog {
    const { name, vcpus, tracer, groups } = this;
    return { name, vcpus, tracer, groups, counters: [], tableBasePfn: TABLE_PFN_BASE };
  }
}
