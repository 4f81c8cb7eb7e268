/**
 * A state as a whole: everything that can be reached from some objects, to be put back, and as a number.
 *
 * Nothing is listed by hand: what is reached counts, unless it is named in `IGNORED`, each with the reason why no behaviour
 * follows from it. Objects of the start count by what they hold, younger ones also by which is which, in the order in which they
 * are met.
 *
 * The number has 53 bits. Of a million states two would get the same one in one of 10,000 runs, and a state would be taken
 * for seen.
 */
const IGNORED: ReadonlySet<string> = new Set([
  // Counters that only go up: nobody reads them but reports. The gauges pages_*, which the invariants speak of, count.
  'remote_tlb_flush',
  'remote_tlb_flush_requests',
  'mmu_shadow_zapped',
  'mmu_cache_miss',
  'mmu_recycled',
  'max_mmu_rmap_size',
  'max_mmu_page_hash_collisions',
  'pf_taken',
  'pf_fixed',
  'pf_emulate',
  'pf_spurious',
  'pf_fast',
  'pf_mmio_spte_created',
  'tlb_flush',
  'exits',
  // Results that are taken before the next mark; the explorer spoils them at each, so that nobody can rely on them.
  'spteLo',
  'spteHi',
  'prefetchPfns',
  'bytes',
  // A cache of a search, forgotten at each change.
  'last',
  // Constants of a configuration; registers that no access of a page looks at or changes; observers.
  'policy',
  'kernel',
  'bugs',
  'config',
  'cpuModel',
  'model',
  'regs',
  'state',
  'permissions',
  'rsvdLo',
  'rsvdHi',
  'pkruMask',
  'trace',
  // What only guest tables and instructions use; a page is accessed without them.
  'emulator',
  'nested',
  'insn',
  'code',
  'guestWalk',
  'translations',
  'unsyncBitmap',
  // The walker: what it found is used before the next mark.
  'native',
]);

const isView = (value: object): value is Int32Array => ArrayBuffer.isView(value);

// ---- putting back --------------------------------------------------------------------------------------------------

/** A table arena's words are zero from its highest table on. */
interface Arena {
  readonly words: Int32Array;
  readonly high: number;
}
const TABLE_WORDS = 1024;

function isArena(object: object): object is Arena {
  return 'freeList' in object && 'high' in object && 'words' in object;
}

type Saved =
  | { readonly kind: 'arena'; readonly object: Arena; readonly copy: Int32Array }
  | { readonly kind: 'view'; readonly object: Int32Array; readonly copy: Int32Array }
  | { readonly kind: 'array'; readonly object: unknown[]; readonly copy: unknown[] }
  | {
      readonly kind: 'object';
      readonly object: Record<string, unknown>;
      readonly names: string[];
      readonly copy: unknown[];
    };

/** What can be reached from a root, as it is now. Objects keep their identity when it is put back. */
export class Snapshot {
  private readonly saved: Saved[] = [];

  /** `deep`: with all that they refer to; else with the typed arrays that they have themselves. */
  constructor(roots: readonly object[], deep = true) {
    if (!deep) {
      for (const root of roots) for (const value of this.save(root)) if (ArrayBuffer.isView(value)) this.save(value);
      return;
    }
    const seen = new Set<object>(roots);
    for (const object of seen) {
      for (const value of this.save(object))
        if (typeof value === 'object' && value !== null && !seen.has(value)) seen.add(value);
    }
  }

  /** Keeps one object; what it refers to. */
  private save(object: object): readonly unknown[] {
    if (isView(object)) {
      if (object.length > 0) this.saved.push({ kind: 'view', object, copy: object.slice() });
      return [];
    }
    if (Array.isArray(object)) {
      this.saved.push({ kind: 'array', object, copy: [...object] });
      return object;
    }
    if (object instanceof Map || object instanceof Set) {
      if (object.size > 0) throw new TypeError('a map or set that is not empty is not saved');
      return [];
    }
    if (isArena(object))
      this.saved.push({ kind: 'arena', object, copy: object.words.slice(0, object.high * TABLE_WORDS) });
    const record = object as Record<string, unknown>;
    const names = Object.keys(record).filter((name) => !(name === 'words' && isArena(object)));
    const copy = names.map((name) => record[name]);
    if (!Object.isFrozen(object)) this.saved.push({ kind: 'object', object: record, names, copy });
    return copy;
  }

  restore(): void {
    for (const saved of this.saved) {
      if (saved.kind === 'view') saved.object.set(saved.copy);
      else if (saved.kind === 'arena') {
        const { words, high } = saved.object;
        words.fill(0, saved.copy.length, high * TABLE_WORDS);
        words.set(saved.copy);
      } else if (saved.kind === 'array') {
        saved.object.length = saved.copy.length;
        for (let i = 0; i < saved.copy.length; i++) saved.object[i] = saved.copy[i];
      } else {
        const { object, names, copy } = saved;
        for (let i = 0; i < names.length; i++) if (object[names[i]] !== copy[i]) object[names[i]] = copy[i];
      }
    }
  }
}

// ---- a number for it -----------------------------------------------------------------------------------------------

const doubles = new Float64Array(1);
const doubleWords = new Int32Array(doubles.buffer);

/** The same in every run, so that states of two explorations can be compared. */
function numberOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash;
}

/** An object that there was at the start, and what its fields held then. */
interface Origin {
  readonly object: Record<string, unknown>;
  readonly names: readonly string[];
  readonly copy: readonly unknown[];
  /** Collections count by what is in them now, not by which they are. */
  readonly isCollection: readonly boolean[];
}

/** A typed array, in words: one kind of array is compared much faster than several. An arena's are those in use. */
interface OriginView {
  readonly arena: Arena | null;
  readonly words: Int32Array;
  readonly copy: Int32Array;
}

/** The number of a state: of all that differs from how it was at the start, where nearly everything is alike. */
export class StateHash {
  private a = 0;
  private b = 0;
  /** Objects that there were at the start, but collections. */
  private readonly known = new Map<object, number>();
  private readonly origins: Origin[] = [];
  private readonly views: OriginView[] = [];
  private readonly seen = new Map<object, number>();
  private readonly names = new Map<string, number>();
  private readonly functions = new WeakMap<object, number>();
  private readonly fields = new WeakMap<object, readonly string[]>();

  constructor(roots: readonly object[]) {
    const met = new Set<object>(roots);
    for (const object of met) for (const value of this.remember(object)) if (isObject(value)) met.add(value);
  }

  /** Keeps one object of the start; what it refers to. */
  private remember(object: object): readonly unknown[] {
    if (isCollection(object)) return [...(object as Iterable<unknown>)];
    this.known.set(object, this.known.size);
    if (isView(object)) {
      const words = wordsOf(object);
      this.views.push({ arena: null, words, copy: words.slice() });
      return [];
    }
    const record = object as Record<string, unknown>;
    let names = Object.keys(record).filter((name) => !IGNORED.has(name));
    if (isArena(object)) {
      names = names.filter((name) => name !== 'words');
      this.views.push({ arena: object, words: object.words, copy: object.words.slice(0, object.high * TABLE_WORDS) });
    }
    const copy = names.map((name) => record[name]);
    if (!Object.isFrozen(object))
      this.origins.push({ object: record, names, copy, isCollection: copy.map(isCollection) });
    return copy;
  }

  /** The number of the objects of the start and of these. */
  of(parts: readonly unknown[]): number {
    this.a = 0x9e3779b9 | 0;
    this.b = 0x85ebca6b | 0;
    this.seen.clear();
    for (let i = 0; i < this.origins.length; i++) this.origin(this.origins[i], i);
    for (let i = 0; i < this.views.length; i++) this.originView(this.views[i], i);
    this.word(14);
    for (let i = 0; i < parts.length; i++) this.value(parts[i]);
    return (this.a >>> 0) * 0x200000 + (this.b >>> 11);
  }

  private origin({ object, names, copy, isCollection }: Origin, number: number): void {
    for (let i = 0; i < names.length; i++) {
      const value = object[names[i]];
      if (value === copy[i] && !isCollection[i]) continue;
      this.word(number);
      this.word(i);
      this.value(value);
    }
  }

  private originView({ arena, words: own, copy }: OriginView, number: number): void {
    const words = arena?.words ?? own;
    this.word(13);
    this.word(number);
    for (let i = 0; i < copy.length; i++) if (words[i] !== copy[i]) this.differs(i, words[i]);
    const end = arena === null ? 0 : arena.high * TABLE_WORDS;
    for (let i = copy.length; i < end; i++) if (words[i] !== 0) this.differs(i, words[i]);
  }

  private differs(at: number, value: number): void {
    this.word(at);
    this.word(value);
  }

  private word(word: number): void {
    this.a = Math.imul(this.a ^ word, 0x2c1b3c6d);
    this.a = Math.imul(this.a ^ (this.a >>> 15), 0x297a2d39);
    this.b = Math.imul(this.b ^ (this.b >>> 13) ^ word, 0x5bd1e995) + this.a;
  }

  private value(value: unknown): void {
    switch (typeof value) {
      case 'number':
        this.number(value);
        return;
      case 'string':
        this.word(3);
        this.word(this.name(value));
        return;
      case 'boolean':
        this.word(value ? 4 : 5);
        return;
      case 'function':
        this.word(6);
        this.word(this.functionNumber(value));
        return;
      case 'object':
        if (value === null) this.word(7);
        else this.object(value);
        return;
      default:
        this.word(8);
    }
  }

  private number(value: number): void {
    if ((value | 0) === value) {
      this.word(1);
      this.word(value);
      return;
    }
    doubles[0] = value;
    this.word(2);
    this.word(doubleWords[0]);
    this.word(doubleWords[1]);
  }

  private name(text: string): number {
    let number = this.names.get(text);
    if (number === undefined) this.names.set(text, (number = numberOf(text)));
    return number;
  }

  private functionNumber(value: object): number {
    let number = this.functions.get(value);
    if (number === undefined) this.functions.set(value, (number = this.name((value as { name: string }).name)));
    return number;
  }

  private object(object: object): void {
    const { known, seen } = this;
    const index = known.get(object) ?? seen.get(object);
    if (index !== undefined) {
      this.word(9);
      this.word(index);
      return;
    }
    seen.set(object, known.size + seen.size);
    if (isCollection(object)) {
      this.word(10);
      for (const value of object as Iterable<unknown>) this.value(value);
      this.word(11);
    } else if (isView(object)) this.view(object);
    else {
      this.word(12);
      const record = object as Record<string, unknown>;
      const names = this.fieldsOf(object);
      for (let i = 0; i < names.length; i++) this.value(record[names[i]]);
    }
  }

  /** Objects of one class have the same fields, in the order of their making. */
  private fieldsOf(object: object): readonly string[] {
    const prototype = Object.getPrototypeOf(object) as object | null;
    const isPlain = prototype === null || prototype === Object.prototype;
    let names = isPlain ? undefined : this.fields.get(prototype);
    if (names === undefined) {
      names = Object.keys(object).filter((name) => !IGNORED.has(name));
      if (!isPlain) this.fields.set(prototype, names);
    }
    return names;
  }

  /** Mostly zeros. */
  private view(view: Int32Array): void {
    this.word(13);
    for (let i = 0; i < view.length; i++) {
      const value = view[i];
      if (value === 0) continue;
      this.word(i);
      this.word(value);
    }
  }
}

function wordsOf({ buffer, byteOffset, byteLength }: Int32Array): Int32Array {
  return new Int32Array(buffer, byteOffset, byteLength / 4);
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** Typed arrays that are no whole words are small ones. */
function isCollection(value: unknown): boolean {
  if (Array.isArray(value) || value instanceof Set || value instanceof Map) return true;
  return isObject(value) && isView(value) && ((value.byteLength | value.byteOffset) & 3) !== 0;
}
