import { describe, expect, it } from 'vitest';
import { KIND_READ, KIND_WRITE, type PageTrace } from '../formats/pntrace.ts';
import { TraceBuilder } from '../formats/pntrace-builder.ts';
import { contrast, count, narrate } from './narrative.ts';
import { type Story, tellStory } from './story.ts';
import { PLAIN_POLICIES } from './testing/plain-machine.ts';

/** Reads 100 pages of each of eight regions, having written one page of the first `written` of them. */
function guest(name: string, written: number): PageTrace {
  const builder = new TraceBuilder({ name, title: '', epochInsns: 1, memBytes: 8 << 21, vcpus: 1 });
  for (let region = 0; region < written; region++) builder.touch(region * 512 + 300, KIND_WRITE);
  for (let region = 0; region < 8; region++) {
    for (let page = 0; page < 100; page++) builder.touch(region * 512 + page, KIND_READ);
  }
  builder.endList(1, 0, 0);
  return builder.finish();
}

const tell = (trace: PageTrace): Story => tellStory(trace, PLAIN_POLICIES, { roundEpochs: 50, seed: 1 });
const textOf = (story: Story): string =>
  narrate(story)
    .map(({ text }) => text)
    .join('\n');

describe('the text under the table', () => {
  it('says what lazy dropping spared and what it did not, in numbers', () => {
    const text = textOf(tell(guest('mixed', 2)));
    expect(text).toContain('It spares 600 of the 800 reads that fault under zap, 75.0%: 4.0 times fewer.');
    expect(text).toContain('6 of the 8 regions touched are never written to: zap takes 600 read faults there, lazy 0');
    expect(text).toContain('dropped (2 times here, each with a flush of all TLBs, 2 more than under zap)');
    expect(text).toContain('200 of the 202 pages sent were at the destination already (zap: 800 of 802)');
    expect(text).toContain('2 of the 2 pages that the guest wrote (100.0%) differ');
  });

  it('claims nothing for a guest that writes everywhere', () => {
    const text = textOf(tell(guest('writer', 8)));
    expect(text).toContain('Nothing here: 800 reads fault, and 800 under zap.');
    expect(text).not.toContain('never written to');
    expect(text).not.toContain('fewer');
  });

  it('claims no loss where nothing was written', () => {
    const text = textOf(tell(guest('reader', 0)));
    expect(text).toContain('Nothing here: source and destination are the same.');
    expect(text).toContain('It spares 800 of the 800 reads that fault under zap, 100.0%.');
    expect(text).not.toContain('ends it');
  });

  it('sets recordings side by side', () => {
    expect(contrast([tell(guest('one', 2)), tell(guest('other', 8))])).toBe(
      'What decides is how many 2 MiB regions stay free of writes: one writes to 2 of the 8 regions that it touches, and ' +
        'lazy dropping spares 75.0% of the reads that fault; other writes to 8 of the 8 regions that it touches, and lazy ' +
        'dropping spares 0.0% of the reads that fault.',
    );
    expect(contrast([tell(guest('one', 2))])).toBe('');
  });

  it('groups digits in threes', () => {
    expect([0, 999, 1000, 1234567].map(count)).toEqual(['0', '999', '1,000', '1,234,567']);
  });
});
