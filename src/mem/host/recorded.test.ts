/**
 * The host model against the real kernel: `testing/recorded.txt` holds what Linux 6.1.192 did under random host calls
 * and guest faults (the recorder's mode A, without guest paging). Each line is a step, or belongs to the one above:
 *
 *     slot ID GPA BYTES BACKING POPULATED HVAOFF     a slot; `del ID`
 *     munmap|dontneed|populate ID OFFSET BYTES RET   host calls; `mprotect ... RET PROTECTION`, `fork`
 *     hw GPA VALUE RET, hr GPA VALUE|RET             the VMM's process_vm_writev and readv
 *     r|w PLACE FOUND                                a fault of the guest: rw or ro and the level, errno, or retry
 *     p PLACE...                                       pages that the fault prefetched (before its own is released)
 *     u RANGE PLACE...                                 invalidate_range_start, and the used entries that KVM drops for it
 *     c PLACE                                          change_pte
 *     m PLACE...                                     used entries that KVM dropped for reasons of its own
 *
 * Numbers are hexadecimal, except for return values. What KVM did is given, not modelled.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Backing, HostMm } from './host-mm.ts';
import { FakeKvm, hvaOf } from './testing/fake-kvm.ts';
import { verifyHost } from './verify.ts';
import { VmmMemory } from './vmm-memory.ts';

interface Step {
  words: string[];
  prefetched: string[];
  /** Ranges and change_pte calls, as FakeKvm writes them; for each range the places whose entries were used. */
  events: string[];
  dropped: string[][];
}

class Replayer {
  private readonly mm = new HostMm();
  private readonly vmm = new VmmMemory(this.mm);
  private readonly kvm = new FakeKvm(this.mm);
  private dropped: string[][] = [];

  constructor() {
    this.kvm.onStart = () => {
      for (const place of this.dropped.shift() ?? []) this.mark(place);
    };
  }

  /** Performs a step: what it answered, and its events. */
  perform(step: Step): { answer: string; events: string[] } {
    this.dropped = step.dropped.map((places) => [...places]);
    const { words } = step;
    const answer = words[0] === 'r' || words[0] === 'w' ? this.fault(step) : this.call(words);
    return { answer, events: this.kvm.take() };
  }

  verify(): string[] {
    return verifyHost(this.mm);
  }

  private fault({ words, prefetched }: Step): string {
    const { mm } = this;
    const hva = hvaOf(words[1]);
    const write = words[0] === 'w';
    const fast = mm.gupFast(hva);
    let pfn = fast >= 0 ? fast : mm.gupSlow(hva, write);
    if (pfn < 0) return `${pfn}`;
    const again = fast >= 0 || write ? pfn : mm.gupFast(hva);
    if (again >= 0) pfn = again;
    const missing = prefetched.filter((place) => mm.gupFast(hvaOf(place)) < 0);
    mm.markAccessed(pfn);
    if (missing.length > 0) return `not prefetched: ${missing.join()}`;
    if (this.kvm.events.length > 0) return 'retry';
    return `${again >= 0 ? 'rw' : 'ro'}${mm.mappingLevel(hva)}`;
  }

  private call([name, ...args]: string[]): string {
    const { vmm } = this;
    const [first, second, third] = args.map((word) => Number.parseInt(word, 16));
    switch (name) {
      case 'slot': {
        const [backing, nopop, hvaoff] = [args[3] as Backing, args[4] === '0', Number.parseInt(args[5], 16)];
        vmm.addSlot({ id: first, gpa: second, bytes: third, backing, nopop, hvaoff });
        return '';
      }
      case 'del':
        vmm.slot(first).used = false;
        return '';
      case 'm':
        for (const place of args) this.mark(place);
        return '';
      case 'fork':
        return `${vmm.fork()}`;
      case 'hw':
        return `${vmm.hostWrite(first, second)}`;
      case 'hr': {
        const value = vmm.hostRead(first);
        return value < 0 ? `${value}` : value.toString(16);
      }
      case 'mprotect':
        return `${vmm.mprotect(first, second, third, args[4])}`;
      case 'munmap':
        return `${vmm.munmap(first, second, third)}`;
      case 'dontneed':
        return `${vmm.dontneed(first, second, third)}`;
      case 'populate':
        return `${vmm.populate(first, second, third)}`;
      default:
        throw new Error(`unknown step ${name}`);
    }
  }

  private mark(place: string): void {
    const pfn = this.mm.pfnAt(hvaOf(place));
    if (pfn >= 0) this.mm.markAccessed(pfn);
  }
}

/** What a step answered in the recording; '' if it answers nothing. */
function recordedAnswer([name, ...args]: string[]): string {
  if (name === 'fork') return '0';
  if (name === 'r' || name === 'w' || name === 'hr') return args[1];
  if (name === 'hw') return args[2];
  return name === 'slot' || name === 'del' || name === 'm' ? '' : args[3];
}

function parse(text: string): [string, Step[]][] {
  const recordings: [string, Step[]][] = [];
  for (const line of text.split('\n')) {
    const words = line.split(' ');
    const steps = recordings.at(-1)?.[1];
    const step = steps?.at(-1);
    if (line === '' || words[0] === '#') continue;
    if (words[0] === '=') recordings.push([words[1], []]);
    else if (words[0] === 'p') step?.prefetched.push(...words.slice(1));
    else if (words[0] === 'c') step?.events.push(`${words[1]}!`);
    else if (words[0] === 'u') {
      step?.events.push(words[1]);
      step?.dropped.push(words.slice(2));
    } else steps?.push({ words, prefetched: [], events: [], dropped: [] });
  }
  return recordings;
}

describe('the real kernel', () => {
  const text = readFileSync(new URL('testing/recorded.txt', import.meta.url), 'utf8');

  it.each(parse(text))('%s: every answer and every event, in order', (_name, steps) => {
    const replayer = new Replayer();
    steps.forEach((step, n) => {
      const what = `step ${n}: ${step.words.join(' ')}`;
      const { answer, events } = replayer.perform(step);
      expect(answer, what).toBe(recordedAnswer(step.words));
      expect(events, what).toEqual(step.events);
    });
    expect(replayer.verify()).toEqual([]);
    expect(steps.length).toBeGreaterThan(200);
  });
});
