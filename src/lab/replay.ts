/**
 * The flagship experiment: a recording runs on one machine under one policy while a pre-copy migration goes on.
 *
 *     premap            begin               round        round               finish           stop the log
 *     one write to      log on, first       |            |                   last round,      one write to
 *     each 2 MiB        copy                |            |                   compare          each region
 *     ---------+--------+---- 50 epochs ----+- 50 epochs -+- ... - the rest -+----------------+----------->
 *                       |<------------------- "while logging" -------------->|
 *
 * Everything that is counted between the two bars is *while logging*, and is a difference of KVM's own statistics where
 * KVM has one. What it hasn't, the cause of a fault by kind of access, comes from the touches themselves.
 *
 * The recording lists for each vCPU and epoch the first touch of each page and kind, so no fault is missed by a policy that
 * takes rights away at epoch borders only, as all of these do: rounds fall on borders. The exception is a large entry that
 * a write drops in the middle of an epoch. A page of its region whose only listed read came before that write, and which
 * is read again after it in the same epoch, faults in the guest and not here. So read faults under `lazy` are a lower
 * bound, too low by at most the pages of a region that are read both before and after its first write within one epoch.
 *
 * In which order several vCPUs touch memory within an epoch is not recorded. It is drawn from `seed`, the same for every
 * policy.
 */
import { Prng } from '../base/prng.ts';
import { KIND_WRITE, type PageTrace } from '../formats/pntrace.ts';
import { beginPrecopy, type DirtyLog, type PrecopyReport } from '../migrate/precopy.ts';
import { profileTrace, REGION_PAGES, type TraceProfile } from './profile.ts';

/** The machine under test, as far as the experiment looks at it. */
export interface ReplayMachine {
  /**
   * One access of a vCPU to a page, repeated after each fault until it succeeds: the faults it took, mostly 0.
   * Must not allocate.
   */
  touch(vcpu: number, page: number, kind: number): number;
  readonly log: DirtyLog;
  stopLog(): void;
  /** KVM's counters as they are now. */
  counters(): MachineCounters;
  /** A copy of every page table. */
  tableWords(): Int32Array;
  /** Invariants of the MMU that do not hold, by name. */
  verify(): readonly string[];
  /** How each 2 MiB region is mapped now; a machine may have nothing to show. */
  regions?(into: RegionView): void;
}

/** By region. */
export interface RegionView {
  /** A state of `vm/inspect.ts`. */
  readonly states: Uint8Array;
  /** Pages in the log, if they are asked for. */
  readonly dirtyPages?: Uint16Array;
}

/** The first seven only grow; the rest are amounts. All vCPUs together. */
export interface MachineCounters {
  readonly pf_taken: number;
  readonly pf_fixed: number;
  readonly pf_fast: number;
  readonly pf_spurious: number;
  readonly tlb_flush: number;
  readonly remote_tlb_flush: number;
  readonly remote_tlb_flush_requests: number;
  readonly pages_4k: number;
  readonly pages_2m: number;
  /** Page tables in use. */
  readonly tables: number;
}

export interface ReplayOptions {
  /** Epochs between two rounds. */
  readonly roundEpochs: number;
  /** Of the order in which several vCPUs touch memory within an epoch. */
  readonly seed: number;
  /** Told after each epoch that ends a round. */
  readonly onProgress?: (epoch: number) => void;
  /** Looks on; must not change what it sees. */
  readonly observer?: ReplayObserver;
}

/** The moments of a run, in this order; rounds fall between epochs. */
export interface ReplayObserver {
  /** All memory is mapped, and nothing is logged yet. */
  beforeLog?(): void;
  /** The log is on and the first copy made. `versions`: of each page at the source, for as long as the run goes on. */
  logStarted?(versions: Uint32Array): void;
  epochBegins?(epoch: number): void;
  epochEnds?(epoch: number, faults: GuestFaults): void;
  /** The guest stands still, and the log is about to be read. */
  roundBegins?(): void;
  /** What the log named has been sent. */
  roundEnds?(bitmap: Int32Array): void;
}

/** Faults since the log started. */
export interface GuestFaults {
  readonly readFaults: number;
  readonly writeFaults: number;
}

export const DEFAULT_ROUND_EPOCHS = 50;
export const DEFAULT_SEED = 1;

/** What one run measured; `measures.ts` has the definitions in words. */
export interface ReplayResult {
  readonly readFaults: number;
  /** Those in regions that the recording never writes to. */
  readonly readFaultsInUnwrittenRegions: number;
  readonly writeFaults: number;
  readonly counters: MachineCounters;
  readonly largeBefore: number;
  readonly largeKept: number;
  readonly largeRecovered: number;
  readonly tablesBefore: number;
  readonly tablesAtEnd: number;
  readonly sptesChangedAtStart: number;
  readonly flushRequestsAtStart: number;
  readonly migration: PrecopyReport;
  readonly brokenInvariants: readonly string[];
}

/**
 * Runs a recording to its end. The machine must be fresh: all memory backed by 2 MiB pages, nothing mapped yet.
 * `profile` saves time when the same recording is run more than once.
 */
export function replay(
  trace: PageTrace,
  machine: ReplayMachine,
  options: ReplayOptions,
  profile: TraceProfile = profileTrace(trace),
): ReplayResult {
  writeToEachRegion(machine, profile);
  const before = machine.counters();
  if (before.pages_2m !== profile.regions || before.pages_4k !== 0) {
    throw new Error(
      `${before.pages_2m} of ${profile.regions} regions are mapped by a large entry before the log starts`,
    );
  }
  const { observer } = options;
  const words = machine.tableWords();
  observer?.beforeLog?.();
  const migration = beginPrecopy(observedLog(machine.log, observer), profile.pages);
  observer?.logStarted?.(migration.versions);
  const sptesChangedAtStart = countChangedEntries(words, machine.tableWords());
  const started = machine.counters();

  const guest = new RunningGuest(trace, machine, migration.versions, profile.regionWritten, options.seed);
  for (let epoch = 0; epoch < trace.header.epochs; epoch++) {
    observer?.epochBegins?.(epoch);
    guest.runEpoch(epoch);
    observer?.epochEnds?.(epoch, guest);
    const done = epoch + 1;
    if (done % options.roundEpochs !== 0) continue;
    // The recording's last epoch is followed by the last round, not by one before it.
    if (done < trace.header.epochs) migration.round();
    options.onProgress?.(done);
  }
  const report = migration.finish();
  const atEnd = machine.counters();
  const brokenInvariants = machine.verify();
  machine.stopLog();
  writeToEachRegion(machine, profile);
  const after = machine.counters();
  return {
    readFaults: guest.readFaults,
    readFaultsInUnwrittenRegions: guest.readFaultsInUnwrittenRegions,
    writeFaults: guest.writeFaults,
    counters: difference(atEnd, before),
    largeBefore: before.pages_2m,
    largeKept: atEnd.pages_2m,
    largeRecovered: after.pages_2m - atEnd.pages_2m,
    tablesBefore: before.tables,
    tablesAtEnd: atEnd.tables,
    sptesChangedAtStart,
    flushRequestsAtStart: started.remote_tlb_flush_requests - before.remote_tlb_flush_requests,
    migration: report,
    brokenInvariants,
  };
}

/** The guest stands still while a round gets the log and sends, so the log's reading is the round. */
function observedLog(log: DirtyLog, observer: ReplayObserver | undefined): DirtyLog {
  if (observer === undefined) return log;
  return {
    start: () => log.start(),
    collect() {
      observer.roundBegins?.();
      const bitmap = log.collect();
      observer.roundEnds?.(bitmap);
      return bitmap;
    },
  };
}

function writeToEachRegion(machine: ReplayMachine, { regions }: TraceProfile): void {
  for (let region = 0; region < regions; region++) machine.touch(0, region * REGION_PAGES, KIND_WRITE);
}

/** The recording's touches, and the faults that they take by kind. */
class RunningGuest implements GuestFaults {
  readFaults = 0;
  readFaultsInUnwrittenRegions = 0;
  writeFaults = 0;
  private readonly trace: PageTrace;
  private readonly machine: ReplayMachine;
  private readonly versions: Uint32Array;
  private readonly regionWritten: Uint8Array;
  private readonly random: Prng;
  /** Where each vCPU is in its list. */
  private readonly at: Uint32Array;

  constructor(
    trace: PageTrace,
    machine: ReplayMachine,
    versions: Uint32Array,
    regionWritten: Uint8Array,
    seed: number,
  ) {
    this.trace = trace;
    this.machine = machine;
    this.versions = versions;
    this.regionWritten = regionWritten;
    this.random = new Prng(seed);
    this.at = new Uint32Array(trace.header.vcpus);
  }

  runEpoch(epoch: number): void {
    const { vcpus } = this.trace.header;
    const { listStart } = this.trace;
    if (vcpus === 1) this.run(0, listStart[epoch], listStart[epoch + 1]);
    else this.interleave(epoch * vcpus, vcpus);
  }

  /** One touch at a time, from a list drawn by what is left of each: every order of the lists is as likely. */
  private interleave(firstList: number, vcpus: number): void {
    const { at } = this;
    const { listStart } = this.trace;
    for (let vcpu = 0; vcpu < vcpus; vcpu++) at[vcpu] = listStart[firstList + vcpu];
    for (let left = listStart[firstList + vcpus] - listStart[firstList]; left > 0; left--) {
      let ticket = this.random.int(left);
      let vcpu = 0;
      for (; vcpu < vcpus - 1; vcpu++) {
        const rest = listStart[firstList + vcpu + 1] - at[vcpu];
        if (ticket < rest) break;
        ticket -= rest;
      }
      this.run(vcpu, at[vcpu], at[vcpu] + 1);
      at[vcpu]++;
    }
  }

  private run(vcpu: number, start: number, end: number): void {
    const { machine, versions } = this;
    const { records } = this.trace;
    for (let i = start; i < end; i++) {
      const record = records[i];
      const page = record >>> 2;
      const kind = record & 3;
      if (machine.touch(vcpu, page, kind) !== 0) this.noteFault(page, kind);
      if (kind === KIND_WRITE) versions[page]++;
    }
  }

  private noteFault(page: number, kind: number): void {
    if (kind === KIND_WRITE) {
      this.writeFaults++;
      return;
    }
    this.readFaults++;
    if (this.regionWritten[Math.floor(page / REGION_PAGES)] === 0) this.readFaultsInUnwrittenRegions++;
  }
}

/** Entries whose two words are not the same in both; tables that only one has count against zeros. */
function countChangedEntries(a: Int32Array, b: Int32Array): number {
  const [short, long] = a.length < b.length ? [a, b] : [b, a];
  let changed = 0;
  for (let i = 0; i < short.length; i += 2) {
    if (short[i] !== long[i] || short[i + 1] !== long[i + 1]) changed++;
  }
  for (let i = short.length; i < long.length; i += 2) {
    if (long[i] !== 0 || long[i + 1] !== 0) changed++;
  }
  return changed;
}

function difference(now: MachineCounters, then: MachineCounters): MachineCounters {
  const names = Object.keys(now) as (keyof MachineCounters)[];
  return Object.fromEntries(names.map((name) => [name, now[name] - then[name]])) as unknown as MachineCounters;
}
