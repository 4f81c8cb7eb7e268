/**
 * A figure: something that is measured again and again, with the target it is to meet. And how it is measured: one sample
 * of each figure in turn, round after round, so that a slow moment of the machine hits all of them a little rather than
 * one of them hard; the median over the rounds counts.
 *
 * Times are the process's CPU time: on a busy machine a process waits for most of the time that passes, and no figure
 * is meant to tell that. Before and after each sample a fixed loop of plain JavaScript is timed, the yardstick. The
 * baseline holds times as multiples of it, so that a slower or a busier machine is no regression, and targets are for a
 * machine on which it takes QUIET_YARDSTICK_NS: what a figure would be there is its `scaled` value.
 */

/** The machine that the targets were set on, at rest: a virtual AMD EPYC of two cores. */
const QUIET_YARDSTICK_NS = 2.25;

export interface Figure {
  readonly name: string;
  readonly unit: string;
  /** To be met: at most, or for rates (`better: 'higher'`) at least. Null: shown for comparison only. */
  readonly target: number | null;
  readonly better: 'lower' | 'higher';
  /** Does the machine's speed count? Not for amounts of memory and ratios. */
  readonly timed: boolean;
  /** How much worse than the baseline it may be, as a ratio, before it is called a regression. */
  readonly tolerance: number;
  /** Sets up; the function that it returns takes one sample, in the figure's unit. */
  prepare(): () => number;
}

export interface Measured {
  readonly figure: Figure;
  readonly samples: readonly number[];
  readonly median: number;
  /** The median as it would be on the machine of the targets, at rest. */
  readonly scaled: number;
  /** The median in yardsticks if it is timed, else the median; the larger the worse. */
  readonly relative: number;
}

/** Samples of a figure, and the yardsticks that were taken with them. */
export interface Series {
  readonly samples: readonly number[];
  readonly yardsticks: readonly number[];
}

/** Measures all of them, interleaved. `onRound` is told before each round; the first two only warm up. */
export function measureFigures(
  figures: readonly Figure[],
  rounds: number,
  onRound: (round: number) => void = () => {},
): Series[] {
  const takers = figures.map((figure) => figure.prepare());
  const samples: number[][] = figures.map(() => []);
  const yardsticks: number[][] = figures.map(() => []);
  for (let round = -WARMUP_ROUNDS; round < rounds; round++) {
    onRound(round);
    for (const [i, take] of takers.entries()) {
      const before = yardstickNs();
      const sample = take();
      const after = yardstickNs();
      if (round < 0) continue;
      yardsticks[i].push((before + after) / 2);
      samples[i].push(sample);
    }
  }
  return figures.map((_, i) => ({ samples: samples[i], yardsticks: yardsticks[i] }));
}

const WARMUP_ROUNDS = 2;

export function summarise(figure: Figure, { samples, yardsticks }: Series): Measured {
  const relatives = samples.map((sample, i) => {
    const cost = figure.better === 'lower' ? sample : 1 / sample;
    if (!figure.timed) return cost;
    return cost / yardsticks[i];
  });
  const relative = median(relatives);
  const cost = figure.timed ? relative * QUIET_YARDSTICK_NS : relative;
  const scaled = figure.better === 'lower' ? cost : 1 / cost;
  return { figure, samples, median: median(samples), scaled, relative };
}

/** The middle one, the upper of two. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Does it meet its target, on the machine of the targets? */
export function isMet({ figure, scaled }: Measured): boolean {
  if (figure.target === null) return true;
  return figure.better === 'lower' ? scaled <= figure.target : scaled >= figure.target;
}

const YARDSTICK_WORDS = 1 << 12;
const YARDSTICK_STEPS = 1 << 10;
const YARDSTICK_CALLS = 1 << 12;
const yardstickWords = new Int32Array(YARDSTICK_WORDS).map((_, i) => Math.imul(i, 0x9e3779b1));
let yardstickSum = 0;

/**
 * Nanoseconds of one step: loads that don't depend on each other, as in a TLB lookup, and no branch that is hard to
 * predict. A core whose other thread is busy slows such code to half, and all figures with it; a chain of dependent loads
 * it slows by a fifth only, so that would be no measure for them. Part of every baseline: if it changes, baselines must be
 * measured anew.
 */
export function yardstickNs(): number {
  const start = cpuNs();
  for (let i = 0; i < YARDSTICK_CALLS; i++) yardstickSum = takeSteps(yardstickWords, yardstickSum);
  return (cpuNs() - start) / (YARDSTICK_CALLS * YARDSTICK_STEPS);
}

/** Short and called often, so that V8 compiles it as a whole, and soon. */
function takeSteps(words: Int32Array, from: number): number {
  let sum = from | 0;
  for (let i = 0; i < YARDSTICK_STEPS; i++) {
    const at = (i * 16) & (YARDSTICK_WORDS - 16);
    if (words[at] === i && words[at + 1] === 7) sum = 0;
    sum = (sum + (words[at + 2] ^ words[at + 3])) | 0;
    sum ^= words[at + 4] & words[at + 5];
    words[at + 6] = sum;
  }
  return sum;
}

/** Nanoseconds that `work` takes, divided by `count`. */
export function nsPer(count: number, work: () => void): number {
  const start = cpuNs();
  work();
  return (cpuNs() - start) / count;
}

/** CPU time of this process so far, its helper threads' included; it advances by microseconds. */
function cpuNs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1e3;
}
