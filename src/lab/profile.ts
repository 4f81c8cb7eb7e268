/** What a recording does to memory, whatever the policy: its 2 MiB regions and how they are touched. */
import { PAGE_BYTES } from '../base/page.ts';
import { KIND_WRITE, type PageTrace } from '../formats/pntrace.ts';

/** Pages of a region: what one 2 MiB entry maps. */
export const REGION_PAGES = 512;

export interface TraceProfile {
  readonly pages: number;
  /** 2 MiB regions of memory; a last one may be shorter. */
  readonly regions: number;
  readonly touchedRegions: number;
  readonly writtenRegions: number;
  readonly touchedPages: number;
  readonly writtenPages: number;
  /** Pages that are read or fetched from in regions that nothing writes to. */
  readonly pagesReadInUnwrittenRegions: number;
  /** Pages written that are not the first of their region. */
  readonly writtenBesideFirst: number;
  /** Recorded reads and fetches, and writes. */
  readonly readTouches: number;
  readonly writeTouches: number;
  /** By region: 1 if the recording writes to it. */
  readonly regionWritten: Uint8Array;
  /** The pages that the recording writes to, in order. */
  readonly writtenPageList: Uint32Array;
}

const TOUCHED = 1;
const WRITTEN = 2;

export function profileTrace(trace: PageTrace): TraceProfile {
  const pages = trace.header.memBytes / PAGE_BYTES;
  const flags = new Uint8Array(pages);
  for (const record of trace.records) {
    flags[record >>> 2] |= (record & 3) === KIND_WRITE ? TOUCHED | WRITTEN : TOUCHED;
  }
  const regions = Math.ceil(pages / REGION_PAGES);
  const regionFlags = new Uint8Array(regions);
  let touchedPages = 0;
  let writtenPages = 0;
  let writtenBesideFirst = 0;
  for (let page = 0; page < pages; page++) {
    const flag = flags[page];
    regionFlags[Math.floor(page / REGION_PAGES)] |= flag;
    if (flag & TOUCHED) touchedPages++;
    if (!(flag & WRITTEN)) continue;
    writtenPages++;
    if (page % REGION_PAGES !== 0) writtenBesideFirst++;
  }
  let pagesReadInUnwrittenRegions = 0;
  for (let page = 0; page < pages; page++) {
    const unwritten = (regionFlags[Math.floor(page / REGION_PAGES)] & WRITTEN) === 0;
    if (unwritten && flags[page] & TOUCHED) pagesReadInUnwrittenRegions++;
  }
  const regionWritten = regionFlags.map((flag) => (flag & WRITTEN ? 1 : 0));
  const writtenPageList = new Uint32Array(writtenPages);
  for (let page = 0, i = 0; page < pages; page++) if (flags[page] & WRITTEN) writtenPageList[i++] = page;
  const { r, w, x } = trace.header.recordsByKind;
  return {
    pages,
    regions,
    touchedRegions: regionFlags.reduce((count, flag) => count + (flag & TOUCHED), 0),
    writtenRegions: regionWritten.reduce((count, written) => count + written, 0),
    touchedPages,
    writtenPages,
    pagesReadInUnwrittenRegions,
    writtenBesideFirst,
    readTouches: r + x,
    writeTouches: w,
    regionWritten,
    writtenPageList,
  };
}
