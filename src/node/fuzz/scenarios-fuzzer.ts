/**
 * Random ops on the machines of given scenarios: a text that the recorder would refuse is a ScenarioError, any other is
 * done, and all invariants of MMU and host memory hold after each.
 */
import type { Prng } from '../../base/prng.ts';
import { type Machine, opsOf, parseMachine, settingsOf } from '../../conform/machine.ts';
import { strip } from '../../conform/recording.ts';
import { ScriptRun } from '../../conform/run.ts';
import { ScenarioError } from '../../conform/scenario.ts';
import { verifyHost } from '../../mem/host/verify.ts';
import type { Vm } from '../../vm/vm.ts';
import { givenStarts, type Start } from './given-starts.ts';
import type { Fuzzer } from './harness.ts';
import { mutateText } from './mutate.ts';

const OPS = 30;

export function scenariosFuzzer(): Fuzzer {
  const starts = givenStarts(60);
  return {
    name: 'scenarios',
    run(prng) {
      const start = prng.pick(starts);
      if (prng.chance(0.1)) return readText(start, prng);
      const run = refusable(() => new ScriptRun(strip(start.recording), machineOf(start, prng)));
      if (run === undefined) return 'machine refused';
      let refused = 0;
      for (let n = 0; n < OPS; n++) {
        const text = opText(start, prng);
        if (refusable(() => run.perform(n, text)) === undefined) refused++;
        check(run, prng.chance(0.2));
      }
      return refused === 0 ? 'all done' : `${refused < OPS / 4 ? 'few' : 'many'} refused`;
    },
  };
}

/** What a call gives; undefined for a declared refusal. */
export function refusable<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (error instanceof ScenarioError) return undefined;
    throw error;
  }
}

/** The text of a scenario, damaged. */
function readText({ recording, settings }: Start, prng: Prng): string {
  const text = [...settings, 'run', ...recording.results.map(({ op }) => op)].join('\n');
  const damaged = mutateText(text, prng, 8);
  try {
    parseMachine(settingsOf(damaged));
    opsOf(damaged);
    return 'text read';
  } catch (error) {
    if (error instanceof ScenarioError) return 'text refused';
    throw error;
  }
}

function machineOf({ settings }: Start, prng: Prng): Machine {
  const machine = parseMachine(settings);
  if (prng.chance(0.6)) return machine;
  return {
    ...machine,
    vcpus: 1 + prng.int(4),
    manual: prng.pick([0, 1, 2, 3, 4]),
    mmuPages: prng.pick([0, 64, 65, 100, 63]),
  };
}

/** VMs in which some log started full. */
const startedFull = new WeakSet<Vm>();

/**
 * Throws for an invariant that doesn't hold. A log that started full leaves large entries writable until it is cleared;
 * if the capability that says so is taken back before, KVM never protects them, and neither do we.
 */
export function check({ vmm }: ScriptRun, hostToo: boolean): void {
  if (vmm.vm.mmu.initiallySet) startedFull.add(vmm.vm);
  const excused = startedFull.has(vmm.vm);
  const broken = vmm.vm.verify().filter((line) => !(excused && line.startsWith('INVARIANT logged')));
  if (hostToo) broken.push(...verifyHost(vmm.mm));
  if (broken.length > 0) throw new Error(`${broken[0]} (and ${broken.length - 1} more)`);
}

// ---- op texts ------------------------------------------------------------------------------------------------------

/** One of the scenario's own, one made up, or either damaged. */
function opText(start: Start, prng: Prng): string {
  const own = prng.chance(0.3) && start.recording.results.length > 0;
  const text = own ? prng.pick(start.recording.results).op : madeUp(start, prng);
  return prng.chance(0.03) ? mutateText(text, prng, 2) : text;
}

const ODD_NUMBERS = ['0', '1', '-1', '4K', '2M', '1G', '0x7fffffff', '0xffffffff', '0x100000000', '0xfffffffffffff000'];
const MORE_NUMBERS = ['0x800000000000', '0x8000000000000000', '0xffffffffffffffff', '07', '0x10000000000', '64', '63'];
const PROTECTIONS = ['none', 'r', 'rx', 'rw', 'w'];
const EDITS = [
  '=0',
  '+W',
  '-W',
  '+P',
  '-P',
  '+U',
  '-U',
  '+N',
  '-A',
  '-D',
  '+S',
  '@0x2000000',
  '~0x1000000',
  '+0x8000000000000',
];

/** By the words that follow an op's name: v address, n number, s slot, o offset and length in it, others themselves. */
const SHAPES: Readonly<Record<string, string>> = {
  r: 'v u',
  r8: 'v u',
  r64: 'v u',
  w: 'v n u',
  w8: 'v n u',
  w64: 'v n u',
  xchg: 'v n u',
  x: 'v u',
  nop: 'u',
  wpte: 'root v level edit edit u',
  invlpg: 'v',
  cr3: 'cr3',
  cr4: 'cr4',
  cr0: 'cr0',
  vcpu: 'vcpu',
  slot: 'slotdef',
  log: 's onoff',
  ro: 's onoff',
  getlog: 's',
  clearlog: 's first count mask',
  del: 's',
  move: 's v',
  dontneed: 's o',
  munmap: 's o',
  mprotect: 's o prot',
  populate: 's o',
  fork: '',
  hw: 'v n',
  hr: 'v',
  mmupages: 'pages',
  getmmupages: '',
  region: 'rawslot flags v size hva',
  rawlog: 'rawslot fault',
  rawclear: 'rawslot first count mask fault',
  cap: 'cap flags n',
  check: 'cap',
  translate: 'v',
  immediate: '',
  param: 'param',
};
const NAMES = Object.keys(SHAPES);

function madeUp(start: Start, prng: Prng): string {
  const name = prng.chance(0.5) ? prng.pick(['r', 'w', 'w64', 'wpte', 'xchg', 'munmap', 'dontneed']) : prng.pick(NAMES);
  const words = SHAPES[name].split(' ').filter((shape) => shape !== '');
  return [name, ...words.map((shape) => word(shape, start, prng))].join(' ').trim();
}

const WORDS: Readonly<Record<string, (start: Start, prng: Prng) => string>> = {
  v: address,
  n: (_, prng) => oddNumber(prng),
  u: (_, prng) => (prng.chance(0.3) ? 'user' : ''),
  s: slot,
  o: offsetAndLength,
  root: (_, prng) => String(prng.int(3)),
  level: (_, prng) => String(1 + prng.int(4)),
  edit: (_, prng) => (prng.chance(0.1) ? `=${oddNumber(prng)}` : prng.pick(EDITS)),
  cr3: (start, prng) => (prng.chance(0.7) ? String(prng.int(2)) : address(start, prng)),
  cr4: (_, prng) => `0x${(prng.chance(0.5) ? 0x20 : prng.next() & 0x3726b0).toString(16)}`,
  cr0: (_, prng) => prng.pick(['0x80010031', '0x10031', '0x80000031', '0x80000001', '0', oddNumber(prng)]),
  vcpu: (_, prng) => String(prng.int(prng.chance(0.9) ? 2 : 6)),
  slotdef: slotDefinition,
  onoff: (_, prng) => prng.pick(['on', 'off']),
  first: (_, prng) => (prng.chance(0.8) ? String(64 * prng.int(8)) : oddNumber(prng)),
  count: (_, prng) => (prng.chance(0.8) ? String(64 * (1 + prng.int(8))) : oddNumber(prng)),
  mask: (_, prng) => (prng.chance(0.5) ? '' : `mask=0x${prng.next().toString(16)}`),
  prot: (_, prng) => prng.pick(PROTECTIONS),
  pages: (_, prng) => (prng.chance(0.8) ? String(60 + prng.int(40)) : oddNumber(prng)),
  rawslot: (start, prng) =>
    prng.chance(0.6) ? slot(start, prng) : prng.pick(['40', '41', '0x10001', oddNumber(prng)]),
  flags: (_, prng) => (prng.chance(0.9) ? String(prng.int(4)) : oddNumber(prng)),
  size: (_, prng) => (prng.chance(0.8) ? `0x${(4096 * prng.int(600)).toString(16)}` : oddNumber(prng)),
  hva: (start, prng) => (prng.chance(0.8) ? hostAddress(start, prng) : oddNumber(prng)),
  fault: (_, prng) => (prng.chance(0.2) ? 'fault' : ''),
  cap: (_, prng) => prng.pick(['168', '168', '220', '10', oddNumber(prng)]),
  param: (_, prng) => `nx_huge_pages ${prng.pick(['off', 'force', 'N', 'Y', 'auto', 'never'])}`,
};

function word(shape: string, start: Start, prng: Prng): string {
  return WORDS[shape](start, prng);
}

function oddNumber(prng: Prng): string {
  if (prng.chance(0.3)) return String(prng.next());
  return prng.pick(prng.chance(0.5) ? ODD_NUMBERS : MORE_NUMBERS);
}

/** In a slot or beside it, in the guest's tables, or anywhere. */
function address({ recording }: Start, prng: Prng): string {
  if (prng.chance(0.1)) return oddNumber(prng);
  if (prng.chance(0.15)) return `0x${(0x10000 + 8 * prng.int(0x2000)).toString(16)}`;
  const { gpa, size } = prng.pick(recording.slots);
  const pages = Number(BigInt(size) >> 12n);
  const offset = 4096 * prng.int(pages + 4) + (prng.chance(0.8) ? 4 * prng.int(8) : prng.int(4096));
  return `0x${(BigInt(gpa) + BigInt(offset)).toString(16)}`;
}

function hostAddress({ recording }: Start, prng: Prng): string {
  const { id, hva_offset } = prng.pick(recording.slots);
  const base = 0x100000000000n + BigInt(id) * 0x100000000n + BigInt(hva_offset);
  return `0x${(base + 4096n * BigInt(prng.int(4))).toString(16)}`;
}

function slot({ recording }: Start, prng: Prng): string {
  if (prng.chance(0.03)) return String(prng.int(40));
  return String(prng.pick(recording.slots).id);
}

function offsetAndLength({ recording }: Start, prng: Prng): string {
  if (prng.chance(0.03)) return `${oddNumber(prng)} ${oddNumber(prng)}`;
  const pages = Number(BigInt(prng.pick(recording.slots).size) >> 12n);
  const unit = prng.chance(0.3) ? 512 : 1;
  return `0x${(4096 * unit * prng.int(Math.ceil(pages / unit))).toString(16)} ${4096 * unit * (1 + prng.int(4))}`;
}

/** A slot's own number often is in use, which the recorder refuses. */
function slotDefinition(_: Start, prng: Prng): string {
  const gpa = prng.chance(0.9) ? `0x${(0x4000000 + 4096 * prng.int(4096)).toString(16)}` : oddNumber(prng);
  const size = prng.chance(0.9) ? `${prng.pick([4, 64, 1024, 2048, 4096])}K` : oddNumber(prng);
  const options = ['', 'ro', 'log', 'nopop', 'hvaoff=0x1000'].filter(() => prng.chance(0.3)).join(' ');
  return `${6 + prng.int(8)} ${gpa} ${size} ${prng.pick(['4k', '4k', 'thp', '2m', '1g'])} ${options}`;
}
