/**
 * Runs a fuzzer: execution after execution, each from a seed of its own, so that any finding can be had again from one
 * number. What counts as a finding is anything but a declared refusal: an exception of another kind, an invariant that
 * does not hold, an execution that takes far too long.
 */
import { Prng } from '../../base/prng.ts';

export interface Fuzzer {
  readonly name: string;
  /** One execution. Answers how it ended in a word or two (these are counted), throws for a finding. */
  run(prng: Prng): string | Promise<string>;
  /** Takes away what was made. */
  close?(): void;
}

export interface FuzzOptions {
  readonly firstSeed: number;
  /** Ends after this many, or after this time. */
  readonly executions?: number;
  readonly seconds?: number;
  /** Told of each seed before it runs: whoever watches knows what hangs. */
  readonly onSeed?: (seed: number) => void;
}

export interface Finding {
  readonly seed: number;
  readonly problem: string;
}

export interface FuzzReport {
  readonly fuzzer: string;
  readonly executions: number;
  readonly seconds: number;
  readonly slowest: { readonly seed: number; readonly ms: number };
  readonly outcomes: Readonly<Record<string, number>>;
  readonly findings: readonly Finding[];
}

/** An execution may take this long. */
const TOO_LONG_MS = 60_000;
const MAX_FINDINGS = 20;

export async function fuzz(fuzzer: Fuzzer, options: FuzzOptions): Promise<FuzzReport> {
  const { firstSeed, executions = Infinity, seconds = Infinity, onSeed } = options;
  const outcomes = new Map<string, number>();
  const findings = new Map<string, Finding>();
  const slowest = { seed: firstSeed, ms: 0 };
  const start = performance.now();
  let done = 0;
  for (; done < executions && performance.now() - start < 1000 * seconds && findings.size < MAX_FINDINGS; done++) {
    const seed = (firstSeed + done) >>> 0;
    onSeed?.(seed);
    const before = performance.now();
    const cpuBefore = process.cpuUsage();
    let problem: string | undefined;
    try {
      const outcome = await fuzzer.run(new Prng(seed));
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    } catch (thrown) {
      problem = describe(thrown);
    }
    // On a busy machine the clock tells of others.
    const { user, system } = process.cpuUsage(cpuBefore);
    const ms = Math.min(performance.now() - before, (user + system) / 1000);
    if (ms > slowest.ms) Object.assign(slowest, { seed, ms });
    if (ms > TOO_LONG_MS) problem ??= `took ${Math.round(ms / 1000)} s`;
    // Like problems once: numbers tell them apart too easily.
    if (problem !== undefined && !findings.has(kindOf(problem))) findings.set(kindOf(problem), { seed, problem });
  }
  return {
    fuzzer: fuzzer.name,
    executions: done,
    seconds: Math.round((performance.now() - start) / 1000),
    slowest: { seed: slowest.seed, ms: Math.round(slowest.ms) },
    outcomes: Object.fromEntries([...outcomes].sort((a, b) => b[1] - a[1])),
    findings: [...findings.values()],
  };
}

/** A finding with the command that has it again. */
export function reproduction(fuzzer: string, { seed, problem }: Finding): string {
  return `PENUMBRA_FUZZ_SEED=${seed} npx vitest run src/node/fuzz/fuzz.test.ts -t ${fuzzer}   # ${problem}`;
}

function describe(thrown: unknown): string {
  if (!(thrown instanceof Error)) return `threw ${String(thrown)}`;
  const frames = (thrown.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  const places = frames
    .slice(0, 4)
    .map((line) => line.replace(/^\s+at |\(?file:\/\/|\)$/g, '').replace(/\S*\/src\//, ''));
  return `${thrown.name}: ${thrown.message.slice(0, 400)} @ ${places.join(' < ')}`;
}

function kindOf(problem: string): string {
  return problem.replace(/0x[0-9a-f]+|\d+/g, '#').slice(0, 160);
}
