/** One line on stderr that is rewritten while long work goes on: on a terminal only, and gone when the work is done. */

/** Milliseconds between two updates. */
const INTERVAL = 80;

export interface ProgressLine {
  show(text: string): void;
  /** Takes the line away; `show` may follow. */
  clear(): void;
}

export function progressLine(stream: NodeJS.WriteStream): ProgressLine {
  if (!stream.isTTY) return { show: () => {}, clear: () => {} };
  let shownAt = 0;
  return {
    show(text) {
      const now = Date.now();
      if (now - shownAt < INTERVAL) return;
      shownAt = now;
      stream.write(`\r\u001b[K${text.slice(0, (stream.columns ?? 80) - 1)}`);
    },
    clear() {
      if (shownAt !== 0) stream.write('\r\u001b[K');
      shownAt = 0;
    },
  };
}
