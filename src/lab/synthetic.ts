/**
 * Synthetic guests: seeded recordings with the habits that matter to a dirty log. One guest is a mix of a few actors,
 * each at home in its own part of memory:
 *
 *     scanner    reads page after page of a range, and begins anew at its end; never writes
 *     reader     reads random pages of a range, writes one in 20 to 400
 *     hot set    reads and writes a handful of pages, over and over
 *     burst      now and then writes a run of neighbouring pages
 *     code       fetches from a few pages
 *
 * The same seed gives the same guest, for ever: a failing seed is a test case.
 */
import { PAGE_BYTES } from '../base/page.ts';
import { Prng } from '../base/prng.ts';
import { KIND_FETCH, KIND_READ, KIND_WRITE, type PageTrace } from '../formats/pntrace.ts';
import { TraceBuilder } from '../formats/pntrace-builder.ts';

const REGION_PAGES = 512;
const EPOCH_INSNS = 100_000;

/** Does what it does in one epoch on one vCPU. */
type Actor = (touch: (page: number, kind: number) => void) => void;

export interface SyntheticOptions {
  /** 2 MiB regions of guest memory; drawn from the seed if absent. */
  readonly regions?: number;
  readonly epochs?: number;
  readonly vcpus?: number;
}

/** The guest that belongs to a seed. */
export function syntheticTrace(seed: number, options: SyntheticOptions = {}): PageTrace {
  const random = new Prng(seed);
  // All three are drawn in any case, so that an option does not change what else the seed says.
  const drawn = { regions: 4 + random.int(29), epochs: 60 + random.int(240), vcpus: random.chance(0.3) ? 2 : 1 };
  const { regions, epochs, vcpus } = { ...drawn, ...options };
  const pages = regions * REGION_PAGES;
  const builder = new TraceBuilder({
    name: `synthetic-${seed}`,
    title: `synthetic guest, seed ${seed}`,
    epochInsns: EPOCH_INSNS,
    memBytes: pages * PAGE_BYTES,
    vcpus,
    more: { recordedWith: 'lab/synthetic' },
  });
  const actors = Array.from({ length: vcpus }, () => drawActors(random, pages));
  const counts = [0, 0, 0];
  const touch = (page: number, kind: number): void => {
    counts[kind]++;
    builder.touch(page, kind);
  };
  for (let epoch = 0; epoch < epochs; epoch++) {
    for (const ofVcpu of actors) {
      counts.fill(0);
      for (const act of ofVcpu) act(touch);
      builder.endList(Math.floor(EPOCH_INSNS / vcpus), counts[KIND_READ], counts[KIND_WRITE]);
    }
  }
  return builder.finish();
}

/** Two to six actors; the first is one that writes beside a region's first page, so that every guest dirties memory. */
function drawActors(random: Prng, pages: number): Actor[] {
  const actors = [hotSet(random, pages)];
  const makers = [scanner, reader, hotSet, burst, code];
  for (let more = 1 + random.int(5); more > 0; more--) actors.push(random.pick(makers)(random, pages));
  return actors;
}

function scanner(random: Prng, pages: number): Actor {
  const { start, length } = drawRange(random, pages, 4 * REGION_PAGES);
  const step = 1 + random.int(40);
  let at = random.int(length);
  return (touch) => {
    for (let i = 0; i < step; i++) touch(start + ((at + i) % length), KIND_READ);
    at = (at + step) % length;
  };
}

function reader(random: Prng, pages: number): Actor {
  const { start, length } = drawRange(random, pages, 6 * REGION_PAGES);
  const touches = 1 + random.int(40);
  const writes = 1 / (20 + random.int(380));
  return (touch) => {
    for (let i = 0; i < touches; i++) touch(start + random.int(length), random.chance(writes) ? KIND_WRITE : KIND_READ);
  };
}

function hotSet(random: Prng, pages: number): Actor {
  const { start, length } = drawRange(random, pages, 2 * REGION_PAGES);
  const hot = Array.from({ length: 2 + random.int(30) }, () => start + random.int(length));
  // The one page that every guest is sure to write lies beside the first of its region.
  hot[0] |= 1;
  const writes = 0.1 + 0.6 * (random.int(100) / 100);
  let begun = false;
  return (touch) => {
    if (!begun) touch(hot[0], KIND_WRITE);
    begun = true;
    for (const page of hot) {
      if (random.chance(0.4)) touch(page, random.chance(writes) ? KIND_WRITE : KIND_READ);
    }
  };
}

function burst(random: Prng, pages: number): Actor {
  const { start, length } = drawRange(random, pages, 4 * REGION_PAGES);
  const rare = 0.01 + 0.1 * (random.int(100) / 100);
  const most = Math.min(length, 16 + random.int(600));
  return (touch) => {
    if (!random.chance(rare)) return;
    const run = 1 + random.int(most);
    const first = start + random.int(length - run + 1);
    for (let page = first; page < first + run; page++) {
      if (random.chance(0.3)) touch(page, KIND_READ);
      touch(page, KIND_WRITE);
    }
  };
}

function code(random: Prng, pages: number): Actor {
  const { start, length } = drawRange(random, pages, REGION_PAGES);
  const hot = Array.from({ length: 4 + random.int(20) }, () => start + random.int(length));
  return (touch) => {
    for (const page of hot) {
      if (random.chance(0.5)) touch(page, KIND_FETCH);
    }
  };
}

function drawRange(random: Prng, pages: number, most: number): { start: number; length: number } {
  const length = 1 + random.int(Math.min(pages, most));
  return { start: random.int(pages - length + 1), length };
}
