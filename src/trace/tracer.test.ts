import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Tracer } from './tracer.ts';
import { RECORD_WORDS } from './tracepoints.ts';

/** First two words of every record that can be read. */
function records(tracer: Tracer): [number, number][] {
  const list: [number, number][] = [];
  for (let n = tracer.first; n < tracer.count; n++) {
    const at = tracer.offsetOf(n);
    list.push([tracer.words[at], tracer.words[at + 1]]);
  }
  return list;
}

describe('a tracer', () => {
  it('is off and empty at first', () => {
    const tracer = new Tracer();
    expect([tracer.on, tracer.count, tracer.first]).toEqual([false, 0, 0]);
  });

  it('keeps eleven words of fields behind the number of the event, 0 for those not given', () => {
    const tracer = new Tracer({ capacity: 2 });
    tracer.emit(7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    tracer.emit(8, -1);
    expect([...tracer.words.subarray(0, RECORD_WORDS)]).toEqual([7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect([...tracer.words.subarray(RECORD_WORDS)]).toEqual([8, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('leaves nothing of an older record in a slot that is used again', () => {
    const tracer = new Tracer({ capacity: 1 });
    tracer.emit(7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    tracer.emit(8);
    expect([...tracer.words]).toEqual([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('overwrites the oldest records when it is full, and still counts all', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 40 }), (capacity, count) => {
        const tracer = new Tracer({ capacity });
        for (let i = 0; i < count; i++) tracer.emit(i, 2 * i);
        const all = Array.from({ length: count }, (_, i) => [i, 2 * i]);
        expect(tracer.count).toBe(count);
        expect(records(tracer)).toEqual(all.slice(Math.max(0, count - capacity)));
        expect(tracer.words).toHaveLength(capacity * RECORD_WORDS);
      }),
    );
  });

  it('grows instead if it is to keep all', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 40 }), (capacity, count) => {
        const tracer = new Tracer({ capacity, keepAll: true });
        for (let i = 0; i < count; i++) tracer.emit(i, 2 * i);
        expect(records(tracer)).toEqual(Array.from({ length: count }, (_, i) => [i, 2 * i]));
      }),
    );
  });

  it('starts anew after clear, at the size it has grown to', () => {
    const tracer = new Tracer({ capacity: 1, keepAll: true });
    for (let i = 0; i < 5; i++) tracer.emit(i);
    const { words } = tracer;
    tracer.clear();
    expect(records(tracer)).toEqual([]);
    for (let i = 0; i < 8; i++) tracer.emit(100 + i);
    expect(tracer.words).toBe(words);
    expect(records(tracer).map(([id]) => id)).toEqual([100, 101, 102, 103, 104, 105, 106, 107]);
  });
});
