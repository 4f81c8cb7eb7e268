/** Tables and running text for a terminal: aligned columns, thin rules, colour only where it is wanted. */

/** Lines are no longer than this, whatever the terminal, so that output can be compared and mailed. */
export const PAGE_COLUMNS = 100;

export interface Style {
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
}

const plain = (text: string): string => text;
export const PLAIN: Style = { bold: plain, dim: plain, good: plain, bad: plain };

const paint =
  (on: number, off: number) =>
  (text: string): string =>
    `\u001b[${on}m${text}\u001b[${off}m`;
const COLOURED: Style = { bold: paint(1, 22), dim: paint(2, 22), good: paint(32, 39), bad: paint(31, 39) };

/** Colour on a terminal only, and not if NO_COLOR is set to anything (no-color.org) or the terminal is dumb. */
export function styleFor(stream: { isTTY?: boolean }, env: Readonly<Record<string, string | undefined>>): Style {
  const wanted = stream.isTTY === true && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
  return wanted ? COLOURED : PLAIN;
}

export interface TableCell {
  readonly text: string;
  readonly look?: keyof Style;
}

/** A line of a table: a heading without cells, or a label with one cell a column. */
export interface TableRow {
  readonly label: string;
  readonly cells: readonly TableCell[];
}

const GAP = 2;
const MIN_CELL = 10;

/**
 * A table with a label column and a column for each head. More columns than a page holds go into further blocks below.
 * Rows without cells are group headings, with a thin rule above.
 */
export function renderTable(heads: readonly string[], rows: readonly TableRow[], style: Style): string {
  const labelWidth = Math.max(...rows.map((row) => row.label.length)) + GAP;
  const widths = heads.map((head, column) =>
    Math.max(MIN_CELL, head.length, ...rows.map((row) => row.cells[column]?.text.length ?? 0)),
  );
  const blocks: string[] = [];
  for (let from = 0; from < heads.length; ) {
    let to = from;
    let width = labelWidth;
    while (to < heads.length && (to === from || width + widths[to] + GAP <= PAGE_COLUMNS)) width += widths[to++] + GAP;
    const rule = style.dim('─'.repeat(width));
    const line = (label: string, cells: readonly string[]): string =>
      label.padEnd(labelWidth) + cells.map((cell) => ' '.repeat(GAP) + cell).join('');
    const lines = [
      line(
        '',
        heads.slice(from, to).map((head, i) => style.bold(head.padStart(widths[from + i]))),
      ),
    ];
    for (const { label, cells } of rows) {
      if (cells.length === 0) lines.push(rule, style.dim(label));
      else
        lines.push(
          line(
            label,
            cells.slice(from, to).map((cell, i) => paintCell(cell, widths[from + i], style)),
          ),
        );
    }
    lines.push(rule);
    blocks.push(lines.join('\n'));
    from = to;
  }
  return blocks.join('\n\n');
}

function paintCell({ text, look }: TableCell, width: number, style: Style): string {
  const padded = text.padStart(width);
  return look === undefined ? padded : style[look](padded);
}

/** Words filled into lines of at most `columns`, each line after `indent`. */
export function fillText(text: string, indent = '', columns = PAGE_COLUMNS): string {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(' ')) {
    const spaced = line === indent ? line + word : `${line} ${word}`;
    if (spaced.length > columns && line !== indent) {
      lines.push(line);
      line = indent + word;
    } else line = spaced;
  }
  lines.push(line);
  return lines.join('\n');
}
