import { describe, expect, it } from 'vitest';
import { progressLine } from './progress.ts';

/** A stream that keeps what is written to it. */
function stream(isTTY: boolean): { written: string[]; asStream: NodeJS.WriteStream } {
  const written: string[] = [];
  const write = (text: string): boolean => written.push(text) > 0;
  return { written, asStream: { isTTY, columns: 20, write } as unknown as NodeJS.WriteStream };
}

describe('the progress line', () => {
  it('is one line on a terminal, cut to its width, and gone in the end', () => {
    const { written, asStream } = stream(true);
    const progress = progressLine(asStream);
    progress.show('a text that is longer than the terminal is wide');
    progress.show('too soon after the first');
    progress.clear();
    expect(written).toEqual(['\r\u001b[Ka text that is long', '\r\u001b[K']);
  });

  it('is silent in a pipe', () => {
    const { written, asStream } = stream(false);
    const progress = progressLine(asStream);
    progress.show('text');
    progress.clear();
    expect(written).toEqual([]);
  });
});
