/**
 * Exhibits about rights: small pages that stand for a large guest page, and tables that are reached in two ways. The
 * guest's data lies in small host pages, so that each of its large pages needs small ones ("direct pages") in the shadow.
 */
import { A, buildGuest, D, type Guest, type MapSpec, P, U, W, WUAD } from '../../vm/testing/build-guest.ts';
import type { Bugs } from '../bugs.ts';
import { exhibit } from './testing/exhibit.ts';

const MIB = 2 ** 20;
const DATA = 16 * MIB;
const VA = 0x40000000;
const OTHER = VA + 2 * MIB;
const DATA_SLOT = { id: 1, gpa: DATA, bytes: 4 * MIB };

/** Two large guest pages of the same frame, with different rights. */
function twoLargePages(bugs: Bugs, bits: number, otherBits: number): Guest {
  const large = (va: number, rights: number): MapSpec => ({ va, gpa: DATA, level: 2, bits: rights });
  return buildGuest({ slots: [DATA_SLOT], maps: [large(VA, bits), large(OTHER, otherBits)], bugs });
}

const exitOf = (guest: Guest, op: string): unknown => guest.do(op).res?.exit ?? 'done';

exhibit('directRightsNotInKey', "user code reads a page that is the supervisor's in its tables", {
  script: (bugs) => {
    const guest = twoLargePages(bugs, WUAD, P | W | A | D);
    guest.expectDone(`r ${VA + 0x5000}`, `r ${OTHER + 0x20000}`);
    return exitOf(guest, `r ${OTHER + 0x5000} user`);
  },
  damage: 'done',
  mended: 'pf',
});

exhibit('directRightsFromAbove', 'a page is written that is read-only in the tables', {
  script: (bugs) => {
    const guest = twoLargePages(bugs, WUAD, P | U | A);
    guest.expectDone(`w ${VA + 0x5000} 1`, `r ${OTHER + 0x20000}`);
    return { exit: exitOf(guest, `w ${OTHER + 0x5000} 2`), value: guest.peek(DATA + 0x5000) };
  },
  damage: { exit: 'done', value: 2n },
  mended: { exit: 'pf', value: 1n },
});

exhibit('directRightsUnchecked', 'the first write to one large page makes another one writable', {
  script: (bugs) => {
    // D is clear: as long as it is not written, the first page is mirrored read-only, like the second.
    const guest = twoLargePages(bugs, P | W | U | A, P | U | A);
    guest.expectDone(`r ${VA + 0x5000}`, `r ${OTHER + 0x20000}`, `w ${VA + 0x5000} 1`);
    return { exit: exitOf(guest, `w ${OTHER + 0x5000} 2`), value: guest.peek(DATA + 0x5000) };
  },
  damage: { exit: 'done', value: 2n },
  mended: { exit: 'pf', value: 1n },
});

exhibit('lowerRightsInherited', 'a page is written through a path that is read-only at its top', {
  // VA        level 3 writable   \    level 2 [0] read-only
  //                                one
  // SHARED    level 3 read-only  /    level 2 [1] writable
  script: (bugs) => {
    const SHARED = VA + 2 ** 30;
    const READ_ONLY = BigInt(P | U | A);
    const guest = buildGuest({
      slots: [DATA_SLOT],
      maps: [
        { va: VA, gpa: DATA },
        { va: VA + 2 * MIB, gpa: DATA + 4096 },
      ],
      edit: (image) => {
        const shared = image.get(image.entry(0, VA, 3), 8);
        image.put(image.entry(0, SHARED, 3), (shared & ~0xfffn) | READ_ONLY, 8);
        const first = image.entry(0, VA, 2);
        image.put(first, (image.get(first, 8) & ~0xfffn) | READ_ONLY, 8);
      },
      bugs,
    });
    guest.expectDone(`r ${VA}`, `w ${VA + 2 * MIB} 1`, `r ${SHARED}`);
    return { exit: exitOf(guest, `w ${SHARED + 2 * MIB} 2`), value: guest.peek(DATA + 4096) };
  },
  damage: { exit: 'done', value: 2n },
  mended: { exit: 'pf', value: 1n },
  beside: ['childRoleUnchecked'],
});
