/**
 * The story as one HTML file: headline, address-space maps, faults over time, table, text. Style, script and data are in
 * it, so that it opens from a disk or a mail without a network; its content security policy forbids one.
 *
 * All numbers and sentences are in the HTML and equal the terminal's, from the same functions; the script only draws maps
 * and charts from the data at the end. The same stories give the same bytes.
 */
import { MEASURES, type Measure } from './measures.ts';
import { conditions, contrast, count, headline, narrate } from './narrative.ts';
import { mapColumns, reportData } from './report-data.ts';
import { REPORT_SCRIPT } from './report-script.ts';
import { REPORT_STYLE } from './report-style.ts';
import type { Story, StoryRun } from './story.ts';

const POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/** The rows of a map's legend: class of the swatch, name, what it means. */
const STATES: readonly (readonly [state: string, name: string, meaning: string])[] = [
  ['large-writable', 'large, writable', 'one 2 MiB spte; while the log is on, writes go through it unseen'],
  ['large-read-only', 'large, read-only', 'one 2 MiB spte; reads go through, the first write faults'],
  ['split', 'split', 'a table of 4 KiB sptes, no page in the log'],
  [
    'split-dirty',
    'split, dirty',
    'the same with pages in the log: 1, 4, 16, 64, 128, 256 and more of 512 for 1 to 6 squares',
  ],
  ['unmapped', 'not mapped', 'no spte: any access faults'],
  [
    'behind',
    'behind',
    'written, but not in the log: the destination has an older version, and after the last round the page is lost',
  ],
];

export interface ReportOptions {
  /** The command that makes this report again. */
  readonly command: string;
}

/** The whole file. Stories must have been told with `timeline`. */
export function renderReport(stories: readonly Story[], { command }: ReportOptions): string {
  const together = contrast(stories);
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${escapeHtml(`Penumbra: ${stories.map((story) => story.trace.header.name).join(', ')}`)}</title>
<style>${REPORT_STYLE}</style>
</head>
<body>
<header class="masthead">
<div class="wordmark"><span class="disc" aria-hidden="true"></span>Penumbra</div>
<nav aria-label="Recordings">${stories.map((story, i) => `<a href="#story-${i}">${escapeHtml(story.trace.header.name)}</a>`).join('')}</nav>
<button type="button" id="theme" hidden>Theme: auto</button>
</header>
<main>
<h1>${escapeHtml(headline(stories))}.</h1>
${together === '' ? '' : `<p class="lead">${escapeHtml(together)}</p>`}
<noscript><p class="notice">Maps and charts are drawn by a script, and scripts are off. Tables and text are complete.</p></noscript>
${stories.map(renderStory).join('\n')}
<section aria-labelledby="definitions">
<h2 id="definitions">What each row counts</h2>
<div class="definitions">${MEASURES.map(renderDefinitions).join('')}</div>
</section>
</main>
<footer><p>Made by <code>${escapeHtml(command)}</code>. Counts are exact and repeatable: the same recording and seed give the
same numbers. Linux KVM's MMU is re-implemented from Linux 6.1 and 6.12; eager splitting is there in its TDP MMU only, and
the column <code>eager</code> is ours for the rmap-based engine.</p></footer>
<script type="application/json" id="report-data">${escapeJson(JSON.stringify(reportData(stories)))}</script>
<script>${REPORT_SCRIPT}</script>
</body>
</html>
`;
}

function renderStory(story: Story, index: number): string {
  const { header } = story.trace;
  const id = `story-${index}`;
  const megabytes = 2 * mapColumns(story.profile.regions);
  return `<section class="story" id="${id}" data-story="${index}" aria-labelledby="${id}-title">
<h2 id="${id}-title">${escapeHtml(header.name)}</h2>
<p class="about">${escapeHtml(header.title)}</p>
<p class="conditions">${escapeHtml(conditions(story))}</p>
<div class="hero" hidden>
<div class="scrubber">
<div class="buttons"><button type="button" class="play" aria-pressed="false">Play</button>
<button type="button" class="back" aria-label="Round before">&#8592;</button>
<button type="button" class="next" aria-label="Next round">&#8594;</button></div>
<label><span class="visually-hidden">Round of the migration</span><input type="range" min="0" max="0" value="0" step="1"></label>
<output class="moment" aria-live="off"></output>
</div>
<p class="region" role="status">Point at a region, or move with the arrow keys in a map, to compare it under the policies.</p>
<div class="panels">${story.runs.map(renderPanel).join('')}</div>
<p class="caption">One cell is a 2 MiB region, one row ${megabytes} MiB, address 0 at the top left: the MMU's tables and its log as
they stand when the round is about to read the log, with the guest stopped.</p>
<ul class="legend">${STATES.map(renderLegend).join('')}</ul>
</div>
<h3>In numbers</h3>
<div class="scroll" role="region" tabindex="0" aria-label="${escapeHtml(`Measures of ${header.name}`)}">${renderTable(story)}</div>
<h3>In words</h3>
<div class="narrative">${narrate(story)
    .map(({ heading, text }) => `<div><h4>${escapeHtml(heading)}</h4><p>${escapeHtml(text)}</p></div>`)
    .join('')}</div>
${renderRelations(story)}
</section>`;
}

function renderLegend([state, name, meaning]: (typeof STATES)[number]): string {
  return `<li><canvas class="swatch" data-state="${state}" aria-hidden="true"></canvas><b>${name}</b> <span>${meaning}</span></li>`;
}

function renderPanel({ policy, about }: StoryRun, index: number): string {
  const row = (key: string, label: string, swatch?: string): string =>
    `<tr><th scope="row">${swatch === undefined ? '' : `<canvas class="swatch" data-state="${swatch}" aria-hidden="true"></canvas>`}${label}</th><td data-key="${key}"></td></tr>`;
  return `<article class="panel" data-run="${index}" aria-label="${escapeHtml(policy)}">
<h4><code>${escapeHtml(policy)}</code></h4>
<p class="policy">${escapeHtml(about)}</p>
<canvas class="map" role="img" tabindex="0"></canvas>
<table class="live"><caption class="visually-hidden">Regions by state, and counts so far, at this round</caption>
<tbody>${STATES.slice(0, 5)
    .map(([state, name]) => row(state, name, state))
    .join('')}</tbody>
<tbody>${row('dirty', 'pages in the log')}${row('behind', 'pages behind', 'behind')}</tbody>
<tbody>${row('reads', 'reads that faulted')}${row('writes', 'writes that faulted')}${row('flushes', 'flushes asked for')}${row('sent', 'pages sent')}</tbody>
</table>
<figure class="faults"><figcaption></figcaption><div class="chart"></div></figure>
<figure class="sent"><figcaption></figcaption><div class="chart"></div></figure>
</article>`;
}

function renderTable(story: Story): string {
  const { runs } = story;
  const heads = runs.map(({ policy }) => `<th scope="col"><code>${escapeHtml(policy)}</code></th>`).join('');
  const groups = MEASURES.map(
    ({ title, measures }) =>
      `<tbody><tr class="group"><th scope="rowgroup" colspan="${runs.length + 1}">${escapeHtml(title)}</th></tr>${measures
        .map((row) => renderRow(row, runs))
        .join('')}</tbody>`,
  );
  return `<table class="measures"><thead><tr><td></td>${heads}</tr></thead>${groups.join('')}</table>`;
}

function renderRow(row: Measure, runs: readonly StoryRun[]): string {
  const part = row.label.startsWith(' ') ? ' class="part"' : '';
  const cells = runs.map(({ result }) => {
    const value = row.of(result);
    const look = row.alarming === true ? ` class="${value === 0 ? 'good' : 'bad'}"` : '';
    return `<td${look}>${count(value)}</td>`;
  });
  return `<tr data-measure="${row.key}"><th scope="row"${part}>${escapeHtml(row.label.trim())}</th>${cells.join('')}</tr>`;
}

function renderRelations({ relations }: Story): string {
  const broken = relations.filter(({ holds }) => !holds);
  if (broken.length > 0) {
    const items = broken.map(({ text }) => `<li>${escapeHtml(text)}</li>`).join('');
    return `<div class="notice"><h4>Not as it must be</h4><p>It does not hold that</p><ul>${items}</ul></div>`;
  }
  const items = relations.map(({ text }) => `<li>${escapeHtml(text)}</li>`).join('');
  return `<div class="checked"><h4>Checked</h4><ul>${items}</ul></div>`;
}

function renderDefinitions({ title, measures }: (typeof MEASURES)[number]): string {
  const items = measures.map(
    ({ label, key, meaning }) =>
      `<dt>${escapeHtml(label.trim())} <code>${escapeHtml(key)}</code></dt><dd>${escapeHtml(meaning)}</dd>`,
  );
  return `<details><summary>${escapeHtml(title)}</summary><dl>${items.join('')}</dl></details>`;
}

function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}

/** JSON that no HTML parser takes for the end of its script, or for a comment. */
function escapeJson(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
