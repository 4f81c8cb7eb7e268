/**
 * Operations that the host's arithmetic does, with the one thing it doesn't tell: whether the result is exact. Only for
 * rounding to nearest, and for numbers far enough from the ends of the range that nothing else can happen.
 */

/** Set by each operation here. */
export const quick = { exact: false, sure: false };

const SMALLEST = 2 ** -400;
const LARGEST = 2 ** 400;
const SMALLEST_SINGLE = 2 ** -60;
const LARGEST_SINGLE = 2 ** 60;
const SPLITTER = 134217729;

function within(a: number, single: boolean): boolean {
  if (a === 0) return true;
  const size = Math.abs(a);
  return single ? size > SMALLEST_SINGLE && size < LARGEST_SINGLE : size > SMALLEST && size < LARGEST;
}

/** What `a * b` lost when it was rounded to `product`. */
function productError(a: number, b: number, product: number): number {
  const aBig = a * SPLITTER;
  const aHigh = aBig - (aBig - a);
  const aLow = a - aHigh;
  const bBig = b * SPLITTER;
  const bHigh = bBig - (bBig - b);
  const bLow = b - bHigh;
  return aLow * bLow - (product - aHigh * bHigh - aLow * bHigh - aHigh * bLow);
}

function sumError(a: number, b: number, sum: number): number {
  const bPart = sum - a;
  return a - (sum - bPart) + (b - bPart);
}

/** `a op b` rounded to single or double; meaningless unless `quick.sure` afterwards. */
export function quickly(operation: string, a: number, b: number, single: boolean): number {
  quick.sure = false;
  if (!within(a, single) || !within(b, single)) return 0;
  let wide: number;
  let lost: number;
  switch (operation) {
    case 'add':
      wide = a + b;
      lost = sumError(a, b, wide);
      break;
    case 'sub':
      wide = a - b;
      lost = sumError(a, -b, wide);
      break;
    case 'mul':
      wide = a * b;
      lost = productError(a, b, wide);
      break;
    case 'div': {
      if (b === 0) return 0;
      wide = a / b;
      const back = wide * b;
      lost = back === a ? productError(wide, b, back) : 1;
      break;
    }
    case 'sqrt': {
      if (b < 0) return 0;
      wide = Math.sqrt(b);
      const back = wide * wide;
      lost = back === b ? productError(wide, wide, back) : 1;
      break;
    }
    default:
      return 0;
  }
  quick.sure = true;
  if (!single) {
    quick.exact = lost === 0;
    return wide;
  }
  const narrow = Math.fround(wide);
  quick.exact = lost === 0 && narrow === wide;
  return narrow;
}
