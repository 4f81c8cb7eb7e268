/**
 * The machine that a scenario sets up before its first op.
 *
 * A recording's head tells the paging, the module parameters and the slots, but not all that the recorder was told:
 * how many vCPUs there are, how the dirty log is taken, how many shadow pages are allowed, and which slots were left
 * unpopulated. These stand in the lines of the scenario before `run`. (Where the scenario is not at hand,
 * `machine-guess.ts` finds what it can in the rest.)
 */
import { MAX_VCPUS, parseNumber, parseSlotWords, ScenarioError, type SlotWords, splitWords } from './scenario.ts';

/** What a recording's head does not tell. */
export interface Machine {
  /** All of them run on one thread, in turn. */
  readonly vcpus: number;
  /** Argument of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 (bit 0: enabled, bit 1: initially all set); 0: not enabled. */
  readonly manual: number;
  /** KVM_SET_NR_MMU_PAGES, called before the first slot is made; 0: not called, KVM's own limit holds. */
  readonly mmuPages: number;
  /** Bytes of each vCPU's dirty ring; 0: bitmaps. */
  readonly ring: number;
  /** Some root is a nested table: the guest may be a hypervisor. */
  readonly nested: boolean;
  /** Slots whose memory the recorder did not write before the first op. */
  readonly unpopulated: readonly number[];
  /** Guest addresses in those slots that it wrote all the same (`code`, `poke`), in order. */
  readonly writes: readonly bigint[];
}

/** The lines of a scenario before `run`, without comments: what `parseMachine` reads. */
export function settingsOf(scenario: string): string[] {
  const settings: string[] = [];
  for (const line of scenario.split('\n')) {
    const words = splitWords(line);
    if (words[0] === 'run') return settings;
    if (words.length > 0) settings.push(words.join(' '));
  }
  throw new ScenarioError("no line 'run'");
}

/** The texts of a scenario's ops, as a recording has them. */
export function opsOf(scenario: string): string[] {
  const lines = scenario.split('\n');
  const run = lines.findIndex((line) => splitWords(line)[0] === 'run');
  if (run < 0) throw new ScenarioError("no line 'run'");
  return lines
    .slice(run + 1)
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
}

/** The machine of a scenario's settings (see `settingsOf`). */
export function parseMachine(settings: readonly string[]): Machine {
  let vcpus = 1;
  let manual = 0;
  let mmuPages = 0;
  let ring = 0;
  let nested = false;
  const slots: SlotWords[] = [];
  const written: bigint[] = [];
  for (const line of settings) {
    const words = splitWords(line);
    const number = (): number => Number(parseNumber(words[1] ?? missing(line)));
    if (words[0] === 'vcpus') vcpus = vcpusOf(number());
    else if (words[0] === 'manual') manual = number();
    else if (words[0] === 'mmupages') mmuPages = number();
    else if (words[0] === 'ring') ring = number();
    else if (words[0] === 'nested') nested = true;
    else if (words[0] === 'slot') slots.push(parseSlotWords(words));
    else if (words[0] === 'code' || words[0] === 'poke') written.push(parseNumber(words[1] ?? missing(line)));
  }
  const bare = slots.filter((slot) => slot.nopop);
  return {
    vcpus,
    manual,
    mmuPages,
    ring,
    nested,
    unpopulated: bare.map((slot) => slot.slot),
    writes: written.filter((gpa) => bare.some((slot) => gpa >= slot.gpa && gpa < slot.gpa + slot.size)),
  };
}

/** The recorder makes as many as it can; ops need one. */
function vcpusOf(wanted: number): number {
  if (wanted < 1) throw new ScenarioError('no vCPU');
  return Math.min(wanted, MAX_VCPUS);
}

function missing(line: string): never {
  throw new ScenarioError(`'${line}': a number is missing`);
}
