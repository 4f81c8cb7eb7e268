/**
 * What a dirty log must say, what it may say besides, and what migrating by it must bring to the other side.
 *
 * A page is an index within its slot. The caller tells of every write that reaches memory, however it got there: by
 * the guest through a fresh or a stale translation, by the CPU setting A or D in a guest table, by KVM on the guest's
 * behalf. The model knows nothing of protection, faults or flushes: those are the means, this is the end.
 *
 *     write --> must, may        collect(R):  must <= R <= may
 *     read fault --> may
 *
 * A collection takes time: bits are taken, pages protected, TLBs flushed. A write in between (`begin`..`finish`) may
 * go by a translation that is still writable and leave no trace, which is right only if R has the page, since user
 * space copies it after the collection; or it faults and is in the log for the next one. So: a page written meanwhile
 * must be in R or in the log afterwards.
 *
 * Turning the log on takes time too: pages written before it is fully on need not be in it, since what copies all
 * pages first starts afterwards.
 */

export interface LogVerdict {
  /** Written, and not reported: a migration loses these. */
  missing: number[];
  /** Reported without a reason. */
  unfounded: number[];
}

const inOrder = (pages: Iterable<number>): number[] => [...pages].sort((a, b) => a - b);

export class DirtyModel {
  readonly pages: number;
  /** Off: nothing is logged. */
  on = false;
  private must = new Set<number>();
  private may = new Set<number>();
  /** Reported and not yet cleared (manual protect, ring). */
  private reported = new Set<number>();
  /** Written since `begin`, or undefined outside of a collection. */
  private during: Set<number> | undefined;
  private enabling = false;

  constructor(pages: number) {
    this.pages = pages;
  }

  /** The log begins to be turned on. `initiallySet`: KVM_DIRTY_LOG_INITIALLY_SET, every page is dirty at first. */
  beginEnable(initiallySet = false): void {
    this.must = new Set(initiallySet ? Array.from({ length: this.pages }, (_, page) => page) : []);
    this.may = new Set(this.must);
    this.reported = new Set();
    this.during = undefined;
    this.on = true;
    this.enabling = true;
  }

  /** It is on, TLBs flushed: from here on no write is missed. */
  finishEnable(): void {
    this.enabling = false;
  }

  enable(initiallySet = false): void {
    this.beginEnable(initiallySet);
    this.finishEnable();
  }

  disable(): void {
    this.on = false;
    this.during = undefined;
    this.must = new Set();
    this.may = new Set();
    this.reported = new Set();
  }

  /** Memory of the page has changed. */
  write(page: number): void {
    this.check(page);
    if (!this.on) return;
    this.may.add(page);
    if (this.enabling) return;
    if (this.during) this.during.add(page);
    else this.must.add(page);
  }

  /**
   * KVM made the page writable without a write to it, and so must count it as dirty: a read fault on a page that the
   * host lets it write (it maps with all rights it can give, and logs when it gives W), or a resynchronised shadow
   * entry.
   */
  becomeWritable(page: number): void {
    this.check(page);
    if (this.on) this.may.add(page);
  }

  /** A read fault of the guest: the rule above. */
  readFault(page: number, hostWritable: boolean): void {
    if (hostWritable) this.becomeWritable(page);
  }

  /** A collection begins; writes until `finish` are judged as the head of this file says. */
  begin(): void {
    this.during = new Set();
  }

  /** KVM_GET_DIRTY_LOG without manual protect: reports and clears. */
  finish(report: Iterable<number>): LogVerdict {
    const has = new Set(report);
    const verdict = this.judge(has);
    this.clearPages(has);
    return verdict;
  }

  /** The same in one step, nothing running meanwhile. */
  collect(report: Iterable<number>): LogVerdict {
    this.begin();
    return this.finish(report);
  }

  /** KVM_GET_DIRTY_LOG with manual protect: a look at the whole log; nothing is cleared. */
  peek(report: Iterable<number>): LogVerdict {
    return this.judge(new Set(report));
  }

  /**
   * KVM_CLEAR_DIRTY_LOG: ends what `begin` began. Bits that were not set stay as they are; user space copies the pages
   * after it. A page cleared blindly, without having been reported, counts as reported by the clear.
   */
  clear(pages: Iterable<number>): void {
    this.clearPages(new Set(pages));
  }

  /** The ring: entries harvested now. Each page is reported once until it is reset. */
  harvest(entries: Iterable<number>): LogVerdict {
    for (const page of entries) this.reported.add(page);
    return this.judge(this.reported);
  }

  /** KVM_RESET_DIRTY_RINGS: what was harvested is protected again. Ends what `begin` began. */
  reset(): void {
    const pages = this.reported;
    this.reported = new Set();
    this.clearPages(pages);
  }

  /** Pages that the log must, and that it may contain now. */
  mustContain(): number[] {
    return inOrder(this.must);
  }

  mayContain(): number[] {
    return inOrder(this.may);
  }

  private judge(report: ReadonlySet<number>): LogVerdict {
    const missing = new Set([...this.must].filter((page) => !report.has(page)));
    const unfounded = new Set([...report].filter((page) => !this.may.has(page)));
    return { missing: inOrder(missing), unfounded: inOrder(unfounded) };
  }

  private clearPages(pages: ReadonlySet<number>): void {
    const during = this.during ?? new Set<number>();
    this.during = undefined;
    for (const page of pages) {
      this.must.delete(page);
      // Written meanwhile: copied afterwards in any case, and perhaps logged once more.
      if (!during.has(page)) this.may.delete(page);
    }
    for (const page of during) if (!pages.has(page)) this.must.add(page);
  }

  private check(page: number): void {
    if (!Number.isInteger(page) || page < 0 || page >= this.pages) throw new RangeError(`no page ${page}`);
  }
}

/** Source and destination of a migration, by versions: each recorded write gives its page a new one. */
export class MigrationModel {
  readonly pages: number;
  private readonly source: bigint[];
  private readonly destination: bigint[];
  private last = 0n;

  /** `equal`: the destination starts with the same contents (a restored snapshot); else it holds nothing yet. */
  constructor(pages: number, start: 'empty' | 'equal' = 'empty') {
    this.pages = pages;
    this.source = Array.from({ length: pages }, () => 0n);
    this.destination = Array.from({ length: pages }, () => (start === 'equal' ? 0n : -1n));
  }

  write(page: number): void {
    this.source[page] = ++this.last;
  }

  /** The page is copied as it is now. */
  send(page: number): void {
    this.destination[page] = this.source[page];
  }

  sendAll(): void {
    for (let page = 0; page < this.pages; page++) this.send(page);
  }

  versionAt(side: 'source' | 'destination', page: number): bigint {
    return (side === 'source' ? this.source : this.destination)[page];
  }

  /** Pages whose last version has not arrived; after the last round these are lost. */
  destinationDiff(): { lost: number; pages: number[] } {
    const pages: number[] = [];
    for (let page = 0; page < this.pages; page++) {
      if (this.source[page] !== this.destination[page]) pages.push(page);
    }
    return { lost: pages.length, pages };
  }
}
