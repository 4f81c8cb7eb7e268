/** The report's style sheet. Both colour schemes are the same rules over two sets of variables. */

const LIGHT = `
  color-scheme: light;
  --paper: #fcfbf8; --raised: #ffffff; --ink: #1d1c1a; --muted: #69655d; --rule: #dfdad0; --faint: #efebe3;
  --accent: #2f5f9e; --focus: #2f5f9e; --bad: #b1172b; --good: #2c6e49; --reads: #2f5f9e; --writes: #b0561b;
  --large-writable: #f0b93a; --large-read-only: #3a6cae; --read-only-mark: #b9d0ee; --split: #bdbfc4; --split-line: #d6d7da; --dirty: #cf4a22;
  --cell: #f1eee7; --unmapped: #d3cdc1; --behind: #7d0f21; --select: #1d1c1a;
`;
const DARK = `
  color-scheme: dark;
  --paper: #15171b; --raised: #1b1e23; --ink: #e8e5de; --muted: #9d9a92; --rule: #30343b; --faint: #22262c;
  --accent: #8db4ea; --focus: #8db4ea; --bad: #ff7c87; --good: #7fc89e; --reads: #78a6e6; --writes: #e39a5c;
  --large-writable: #e5b445; --large-read-only: #47719f; --read-only-mark: #b9d3f2; --split: #5d646e; --split-line: #434951; --dirty: #f2714a;
  --cell: #22262c; --unmapped: #3d424b; --behind: #6d0618; --select: #ffffff;
`;

export const REPORT_STYLE = `
:root {${LIGHT}}
@media (prefers-color-scheme: dark) { :root:not([data-theme='light']) {${DARK}} }
:root[data-theme='dark'] {${DARK}}
*, *::before, *::after { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, system-ui, sans-serif;
}
.masthead, main, footer { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
code { font-family: ui-monospace, 'SF Mono', 'Cascadia Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: .9em; }
a { color: var(--accent); text-underline-offset: .2em; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.visually-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
[hidden] { display: none !important; }

.masthead { display: flex; align-items: center; gap: 20px; padding-top: 18px; padding-bottom: 14px; }
.wordmark { display: flex; align-items: center; gap: 10px; font-weight: 600; letter-spacing: .01em; }
.disc {
  width: 18px; height: 18px; border-radius: 50%; border: 1px solid var(--ink);
  background: linear-gradient(100deg, var(--ink) 0 38%, var(--muted) 38% 62%, transparent 62%);
}
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-right: auto; font-size: 14px; }
button {
  font: inherit; font-size: 14px; color: var(--ink); background: var(--raised); border: 1px solid var(--rule);
  border-radius: 6px; padding: 4px 12px; cursor: pointer; min-height: 32px;
}
button:hover { border-color: var(--muted); }

h1 { font-size: clamp(22px, 2.3vw, 29px); line-height: 1.25; font-weight: 600; letter-spacing: -.01em; max-width: 40em; margin: 14px 0 8px; text-wrap: balance; }
h2 { font-size: 24px; line-height: 1.25; font-weight: 600; letter-spacing: -.008em; margin: 0 0 4px; }
h3 { font-size: 17px; font-weight: 600; margin: 36px 0 6px; }
h4 { font-size: 15px; font-weight: 600; margin: 0 0 4px; }
p { margin: 0 0 12px; }
.lead { max-width: 62em; color: var(--muted); }
.story { border-top: 1px solid var(--rule); margin-top: 24px; padding-top: 20px; }
.story + .story, .story + section { margin-top: 56px; }
.story > .about { max-width: 66em; margin-bottom: 4px; }
.conditions, .caption { color: var(--muted); font-size: 14px; max-width: 76em; }
.conditions { margin-bottom: 14px; }
.caption { margin: 0 0 8px; }

.legend { list-style: none; margin: 0 0 14px; padding: 0; display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 6px 28px; font-size: 13px; line-height: 1.4; }
.legend li { display: grid; grid-template-columns: 26px auto 1fr; gap: 0 8px; align-items: start; }
.legend b { font-weight: 600; white-space: nowrap; }
.legend span { color: var(--muted); }
.swatch { width: 21px; height: 14px; display: inline-block; vertical-align: -2px; }
.legend .swatch { margin-top: 2px; }

.scrubber {
  position: sticky; top: 0; z-index: 2; display: grid; grid-template-columns: auto 1fr minmax(17em, auto); align-items: center; gap: 6px 16px;
  background: var(--paper); border-bottom: 1px solid var(--rule); border-top: 1px solid var(--rule); padding: 8px 0;
}
.scrubber .buttons { display: flex; gap: 6px; }
.play { min-width: 5em; }
.scrubber label { display: block; }
input[type='range'] { width: 100%; margin: 0; display: block; accent-color: var(--accent); min-height: 32px; cursor: pointer; }
.moment { font-size: 14px; font-variant-numeric: tabular-nums; white-space: nowrap; text-align: right; }
.moment b { font-weight: 600; }
.region { font-size: 13px; color: var(--muted); margin: 8px 0 10px; min-height: 3.2em; line-height: 1.6; font-variant-numeric: tabular-nums; }
.region b { color: var(--ink); font-weight: 600; }
.region code { color: var(--ink); }

.panels { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 0 24px; }
/* The rows of all panels beside each other are one grid: maps stay level whatever wraps above them. */
.panel { display: grid; grid-row: span 6; grid-template-rows: subgrid; row-gap: 0; align-content: start; }
.panel h4 { font-size: 16px; margin: 0; }
.panel .policy { font-size: 12.5px; line-height: 1.4; color: var(--muted); margin: 0 0 8px; overflow-wrap: anywhere; }
.map { display: block; width: 100%; cursor: crosshair; touch-action: pan-y; }
.live { width: 100%; border-collapse: collapse; font-size: 13px; line-height: 1.35; margin-top: 10px; font-variant-numeric: tabular-nums; }
.live th { text-align: left; font-weight: 400; color: var(--muted); padding: 2px 0; }
.live th .swatch { margin-right: 7px; }
.live td { text-align: right; padding: 2px 0; }
.live tr.zero td { color: var(--muted); }
.live tr.alarm th, .live tr.alarm td { color: var(--bad); font-weight: 600; }
.live tbody + tbody tr:first-child > * { border-top: 1px solid var(--rule); padding-top: 5px; }
.live tbody:not(:last-child) tr:last-child > * { padding-bottom: 5px; }
figure { margin: 14px 0 0; }
figcaption { align-self: end; font-size: 12.5px; line-height: 1.4; color: var(--muted); display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 10px; margin-bottom: 3px; }
.faults figcaption span:first-child { width: 100%; }
figcaption b { font-weight: 600; color: var(--ink); }
.chart svg { display: block; width: 100%; height: 92px; background: var(--faint); cursor: pointer; }
.sent .chart svg { height: 54px; }
.panel .sent { margin-bottom: 28px; }
.reads { fill: var(--reads); } .writes { fill: var(--writes); } .sent-area { fill: var(--muted); }
.axis { stroke: var(--muted); stroke-width: 1; vector-effect: non-scaling-stroke; }
.cursor { stroke: var(--ink); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.key-reads { color: var(--reads); } .key-writes { color: var(--writes); }

.scroll { overflow-x: auto; }
.measures { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14.5px; line-height: 1.4; min-width: 100%; }
.measures th, .measures td { padding: 3px 0 3px 28px; text-align: right; white-space: nowrap; }
.measures th:first-child { padding-left: 0; text-align: left; font-weight: 400; white-space: normal; width: 40%; }
.measures thead th { font-weight: 600; border-bottom: 1px solid var(--ink); }
.measures thead td { border-bottom: 1px solid var(--ink); }
.measures .group th { color: var(--muted); font-size: 12.5px; padding-top: 12px; }
.measures tbody + tbody .group th { border-top: 1px solid var(--rule); }
.measures tbody tr:last-child > * { padding-bottom: 10px; }
.measures th.part { padding-left: 1.2em !important; }
.measures tbody tr:not(.group):hover { background: var(--faint); }
.measures .bad { color: var(--bad); font-weight: 600; } .measures .good { color: var(--good); }

.narrative { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px 40px; }
.narrative p { max-width: 40em; margin: 0; }
.checked { margin-top: 28px; border-top: 1px solid var(--rule); padding-top: 14px; }
.checked ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 24px; color: var(--muted); font-size: 14px; }
.checked li::before { content: '\\2713'; color: var(--good); margin-right: .5em; }
.notice { border-left: 3px solid var(--bad); padding: 4px 0 4px 14px; margin: 20px 0; }
.notice h4 { color: var(--bad); }
section[aria-labelledby='definitions'] { border-top: 1px solid var(--rule); margin-top: 40px; padding-top: 28px; }
details { border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; padding: 8px 0; }
dl { margin: 0 0 14px; font-size: 14.5px; max-width: 50em; }
dt { font-weight: 600; margin-top: 8px; } dt code { font-weight: 400; color: var(--muted); }
dd { margin: 0 0 0 1.2em; color: var(--muted); }
footer { color: var(--muted); font-size: 13.5px; padding-top: 28px; padding-bottom: 40px; }
footer p { max-width: 60em; overflow-wrap: anywhere; }

@media (max-width: 900px) {
  .panels { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 16px; }
}
@media (max-width: 640px) {
  .masthead, main, footer { padding-left: 16px; padding-right: 16px; }
  .scrubber { grid-template-columns: auto 1fr; }
  .moment { grid-column: 1 / -1; text-align: left; font-size: 13px; }
  .buttons .play { min-width: 4.6em; padding: 4px 8px; }
  .region { min-height: 6.4em; }
  .live, figcaption, .panel .policy { font-size: 12px; }
  .live th .swatch { width: 15px; height: 10px; vertical-align: 0; margin-right: 5px; }
  .measures { font-size: 13px; } .measures th, .measures td { padding-left: 12px; }
}
.measures .group th { width: auto; }
@media print { .scrubber .buttons, #theme, .region { display: none; } .scrubber { position: static; } }
`;
