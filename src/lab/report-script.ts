/**
 * The report's script, as text: it runs in whatever browser the report is opened in, and nowhere else. It decodes the
 * data of `report-data.ts` and draws maps, charts and the live counts for the round that the scrubber stands at.
 */
export const REPORT_SCRIPT = String.raw`
'use strict';
(() => {
  const UNMAPPED = 0, LARGE_WRITABLE = 1, LARGE_READ_ONLY = 2, SPLIT = 3;
  const STATE_NAMES = ['not mapped', 'large, writable', 'large, read-only', 'split'];
  const LADDER = [1, 4, 16, 64, 128, 256];
  const data = JSON.parse(document.getElementById('report-data').textContent);
  const digits = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ',');
  const sum = (list) => list.reduce((total, n) => total + n, 0);

  // ---- data -------------------------------------------------------------------------------------------------------

  function applyChanges(into, pairs) {
    for (let i = 0, at = 0; i < pairs.length; i += 2) {
      at += pairs[i];
      into[at] = pairs[i + 1];
    }
    return into;
  }

  function decodeFrames(frames, regions) {
    let states = new Uint8Array(regions);
    let behind = new Uint16Array(regions);
    return frames.map((frame) => {
      states = applyChanges(states.slice(), frame.states);
      behind = applyChanges(behind.slice(), frame.behind);
      const dirty = applyChanges(new Uint16Array(regions), frame.dirty);
      const [reads, writes, flushes, sent] = frame.soFar;
      return { epoch: frame.epoch, states, behind, dirty, reads, writes, flushes, sent };
    });
  }

  // ---- cells ------------------------------------------------------------------------------------------------------

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue('--' + name).trim();
    return {
      large: of('large-writable'), readOnly: of('large-read-only'), mark: of('read-only-mark'), split: of('split'), splitLine: of('split-line'),
      dirty: of('dirty'), cell: of('cell'), unmapped: of('unmapped'), behind: of('behind'), select: of('select'),
      muted: of('muted'),
    };
  }

  // One cell in device pixels: colour, and a pattern that tells the states apart without it.
  function drawCell(c, ink, x, y, w, h, state, dirty, behind) {
    if (state === UNMAPPED) {
      c.fillStyle = ink.unmapped;
      c.fillRect(x, y, w, h);
      c.fillStyle = ink.cell;
      c.fillRect(x + 1, y + 1, w - 2, h - 2);
    } else if (state === LARGE_WRITABLE) {
      c.fillStyle = ink.large;
      c.fillRect(x, y, w, h);
    } else if (state === LARGE_READ_ONLY) {
      c.fillStyle = ink.readOnly;
      c.fillRect(x, y, w, h);
      c.fillStyle = ink.mark;
      const bar = Math.max(1, Math.round(h / 6));
      c.fillRect(x + Math.round(w * 0.22), y + Math.round((h - bar) / 2), w - 2 * Math.round(w * 0.22), bar);
    } else {
      let filled = 0;
      while (filled < LADDER.length && dirty >= LADDER[filled]) filled++;
      c.fillStyle = ink.split;
      c.fillRect(x, y, w, h);
      const columnAt = (i) => x + Math.round((i * (w + 1)) / 3), rowAt = (i) => y + Math.round((i * (h + 1)) / 2);
      c.fillStyle = ink.dirty;
      for (let i = 0; i < filled; i++) {
        const left = columnAt(i % 3), top = rowAt(Math.floor(i / 3));
        c.fillRect(left, top, columnAt((i % 3) + 1) - 1 - left, rowAt(Math.floor(i / 3) + 1) - 1 - top);
      }
      c.fillStyle = ink.splitLine;
      for (let i = 1; i < 3; i++) c.fillRect(columnAt(i) - 1, y, 1, h);
      c.fillRect(x, rowAt(1) - 1, w, 1);
    }
    if (behind > 0) {
      c.strokeStyle = ink.behind;
      c.lineWidth = Math.max(1.5, h / 6);
      c.beginPath();
      c.moveTo(x + w * 0.25, y + h * 0.15);
      c.lineTo(x + w * 0.75, y + h * 0.85);
      c.moveTo(x + w * 0.75, y + h * 0.15);
      c.lineTo(x + w * 0.25, y + h * 0.85);
      c.stroke();
    }
  }

  function drawSwatch(canvas, ink) {
    const ratio = window.devicePixelRatio || 1;
    const w = Math.round(canvas.clientWidth * ratio), h = Math.round(canvas.clientHeight * ratio);
    if (w === 0) return;
    canvas.width = w;
    canvas.height = h;
    const state = {
      'large-writable': LARGE_WRITABLE, 'large-read-only': LARGE_READ_ONLY, split: SPLIT, 'split-dirty': SPLIT,
      unmapped: UNMAPPED, behind: LARGE_WRITABLE,
    }[canvas.dataset.state];
    drawCell(canvas.getContext('2d'), ink, 0, 0, w, h, state, canvas.dataset.state === 'split-dirty' ? 16 : 0,
      canvas.dataset.state === 'behind' ? 1 : 0);
  }

  // ---- one recording ----------------------------------------------------------------------------------------------

  function setUp(section) {
    const story = data.stories[Number(section.dataset.story)];
    const { regions, columns } = story;
    const rows = Math.ceil(regions / columns);
    const runs = story.runs.map((run) => ({ ...run, frames: decodeFrames(run.frames, regions) }));
    const frameCount = runs.length === 0 ? 0 : runs[0].frames.length;
    if (frameCount === 0) return null;
    const hero = section.querySelector('.hero');
    const range = hero.querySelector('input');
    const moment = hero.querySelector('.moment');
    const regionText = hero.querySelector('.region');
    const play = hero.querySelector('.play');
    const mostFaults = Math.max(1, ...runs.map((run) => Math.max(...run.readFaults, ...run.writeFaults, 0)));
    const sentOf = (run) => run.frames.map((frame, i) => (i === 0 ? 0 : frame.sent - run.frames[i - 1].sent));
    const mostSent = Math.max(1, ...runs.map((run) => Math.max(...sentOf(run))));
    // Charts show time from left to right, by epochs.
    const xOf = (epoch) => (story.epochs === 0 ? 0 : (1000 * epoch) / story.epochs);
    const escape = (text) => text.replace(/[&<>]/g, (char) => '&#' + char.charCodeAt(0) + ';');
    let at = 0, selected = -1, timer = 0;
    hero.hidden = false;
    range.max = String(frameCount - 1);

    const panels = [...hero.querySelectorAll('.panel')].map((element) => {
      const run = runs[Number(element.dataset.run)];
      const panel = { element, run, canvas: element.querySelector('.map'), cells: {}, cursors: [], geometry: null };
      for (const cell of element.querySelectorAll('td[data-key]')) panel.cells[cell.dataset.key] = cell;
      panel.cursors.push(drawFaults(element.querySelector('.faults'), run), drawSent(element.querySelector('.sent'), run));
      panel.canvas.addEventListener('pointermove', (event) => select(regionAt(panel, event)));
      panel.canvas.addEventListener('pointerleave', () => select(-1));
      panel.canvas.addEventListener('pointerdown', (event) => select(regionAt(panel, event)));
      panel.canvas.addEventListener('keydown', (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
        if (event.key === 'Escape') select(-1);
        if (step === undefined) return;
        event.preventDefault();
        const to = selected < 0 ? 0 : selected + step;
        if (to >= 0 && to < regions) select(to);
      });
      return panel;
    });

    function chart(figure, caption, height, shapes) {
      figure.querySelector('figcaption').innerHTML = caption;
      figure.querySelector('.chart').innerHTML =
        '<svg viewBox="0 0 1000 ' + height + '" preserveAspectRatio="none" aria-hidden="true">' + shapes +
        '<line class="cursor" x1="0" x2="0" y1="0" y2="' + height + '"></line></svg>';
      const svg = figure.querySelector('svg');
      svg.addEventListener('click', (event) => {
        const box = svg.getBoundingClientRect();
        const epoch = ((event.clientX - box.left) / box.width) * story.epochs;
        let nearest = 1;
        runs[0].frames.forEach((frame, i) => {
          if (i > 0 && Math.abs(frame.epoch - epoch) < Math.abs(runs[0].frames[nearest].epoch - epoch)) nearest = i;
        });
        go(nearest);
      });
      return svg.querySelector('.cursor');
    }

    // Columns as one path of steps, heights by square root: the first rounds would dwarf all that follows.
    function steps(values, edges, base, scale) {
      let path = 'M' + edges[0].toFixed(1) + ' ' + base;
      values.forEach((value, i) => {
        const y = (base - Math.sqrt(value) * scale).toFixed(2);
        path += 'L' + edges[i].toFixed(1) + ' ' + y + 'L' + edges[i + 1].toFixed(1) + ' ' + y;
      });
      return path + 'L' + edges[values.length].toFixed(1) + ' ' + base + 'Z';
    }

    function drawFaults(figure, run) {
      const edges = run.readFaults.map((_, i) => xOf(i * run.epochsPerBin)).concat(xOf(story.epochs));
      const scale = 98 / Math.sqrt(mostFaults);
      const peak = Math.max(0, ...run.readFaults), low = Math.max(0, ...run.writeFaults);
      const per = run.epochsPerBin === 1 ? 'epoch' : run.epochsPerBin + ' epochs';
      return chart(figure, '<span>faults per ' + per + ', \u221a scale</span><span><b class="key-reads">\u25b2 reads</b> max ' +
        digits(peak) + '</span><span><b class="key-writes">\u25bc writes</b> max ' + digits(low) + '</span>', 200,
        run.readFaults.length === 0 ? '' :
        '<path class="reads" d="' + steps(run.readFaults, edges, 100, scale) + '"></path>' +
        '<path class="writes" d="' + steps(run.writeFaults, edges, 100, -scale) + '"></path>' +
        '<line class="axis" x1="0" x2="1000" y1="100" y2="100"></line>');
    }

    function drawSent(figure, run) {
      const sent = sentOf(run).slice(2);
      const edges = run.frames.slice(1).map((frame) => xOf(frame.epoch));
      return chart(figure, '<span>pages sent per round, \u221a scale</span><span>max <b>' + digits(Math.max(0, ...sent)) + '</b></span>', 100,
        sent.length === 0 ? '' : '<path class="sent-area" d="' + steps(sent, edges, 100, 98 / Math.sqrt(mostSent)) + '"></path>');
    }

    function regionAt(panel, event) {
      const box = panel.canvas.getBoundingClientRect();
      const { left, pitchX, pitchY, ratio } = panel.geometry;
      const column = Math.floor(((event.clientX - box.left) * ratio - left) / pitchX);
      const row = Math.floor(((event.clientY - box.top) * ratio) / pitchY);
      const region = row * columns + column;
      return column < 0 || column >= columns || row < 0 || row >= rows || region >= regions ? -1 : region;
    }

    function drawMap(panel, ink) {
      const { canvas, run } = panel;
      const ratio = window.devicePixelRatio || 1;
      const width = Math.floor(canvas.clientWidth * ratio);
      if (width === 0) return;
      const font = Math.round(10 * ratio);
      const left = Math.round(34 * ratio);
      const pitchX = Math.max(3, Math.floor((width - left) / columns));
      const pitchY = Math.max(3, Math.round(pitchX * (rows > columns ? 0.72 : 1)));
      const gap = pitchX >= 8 ? Math.max(1, Math.round(ratio)) : 1;
      if (canvas.width !== width || canvas.height !== rows * pitchY) {
        canvas.width = width;
        canvas.height = rows * pitchY;
        canvas.style.height = (rows * pitchY) / ratio + 'px';
      }
      panel.geometry = { left, pitchX, pitchY, ratio };
      const c = canvas.getContext('2d');
      c.clearRect(0, 0, canvas.width, canvas.height);
      const { states, dirty, behind } = run.frames[at];
      c.font = font + 'px ' + getComputedStyle(document.body).fontFamily;
      c.textAlign = 'right';
      c.textBaseline = 'top';
      c.fillStyle = ink.muted;
      const every = Math.max(1, Math.ceil(rows / 8));
      for (let row = 0; row < rows; row += every) {
        const mib = row * columns * 2;
        c.fillText(mib % 1024 === 0 && mib > 0 ? mib / 1024 + ' GiB' : mib + (row === 0 ? ' MiB' : ''), left - 5 * ratio, row * pitchY);
      }
      for (let region = 0; region < regions; region++) {
        const x = left + (region % columns) * pitchX, y = Math.floor(region / columns) * pitchY;
        drawCell(c, ink, x, y, pitchX - gap, pitchY - gap, states[region], dirty[region], behind[region]);
      }
      if (selected >= 0) {
        const x = left + (selected % columns) * pitchX, y = Math.floor(selected / columns) * pitchY;
        c.strokeStyle = ink.select;
        c.lineWidth = 2 * ratio;
        c.strokeRect(x - gap, y - gap, pitchX + gap, pitchY + gap);
      }
    }

    function showCounts(panel) {
      const frame = panel.run.frames[at];
      const counts = { 'large-writable': 0, 'large-read-only': 0, split: 0, 'split-dirty': 0, unmapped: 0 };
      for (let region = 0; region < regions; region++) {
        const state = frame.states[region];
        if (state === SPLIT) counts[frame.dirty[region] > 0 ? 'split-dirty' : 'split']++;
        else counts[state === UNMAPPED ? 'unmapped' : state === LARGE_WRITABLE ? 'large-writable' : 'large-read-only']++;
      }
      const values = { ...counts, dirty: sum(frame.dirty), behind: sum(frame.behind), reads: frame.reads, writes: frame.writes,
        flushes: frame.flushes, sent: frame.sent };
      for (const key of Object.keys(panel.cells)) {
        const text = digits(values[key]);
        const row = panel.cells[key].parentElement;
        if (panel.cells[key].textContent !== text) panel.cells[key].textContent = text;
        row.classList.toggle('zero', values[key] === 0);
        row.classList.toggle('alarm', key === 'behind' && values[key] > 0);
      }
      panel.canvas.setAttribute('aria-label', panel.run.policy + ': ' + digits(counts['large-writable']) + ' regions large and writable, ' +
        digits(counts['large-read-only']) + ' large and read-only, ' + digits(counts.split + counts['split-dirty']) + ' split, ' +
        digits(counts['split-dirty']) + ' of them dirty, ' + digits(counts.unmapped) + ' not mapped; ' + digits(values.behind) + ' pages behind');
    }

    function momentName() {
      if (at === 0) return 'before the log';
      if (at === 1) return 'log started';
      return at === frameCount - 1 ? 'last round' : 'round ' + (at - 1) + ' of ' + (frameCount - 2);
    }

    function showMoment() {
      const { epoch } = runs[0].frames[at];
      const millions = (epoch * story.epochInsns) / 1e6;
      const ran = (millions >= 100 ? digits(Math.round(millions)) : millions.toFixed(1)) + ' M instructions';
      moment.innerHTML = '<b>' + momentName() + '</b> \u00b7 epoch ' + digits(epoch) + ' \u00b7 ' + ran;
      range.value = String(at);
      range.setAttribute('aria-valuetext', momentName() + ', epoch ' + epoch);
      for (const panel of panels) {
        for (const cursor of panel.cursors) {
          cursor.setAttribute('x1', String(xOf(epoch)));
          cursor.setAttribute('x2', String(xOf(epoch)));
        }
      }
    }

    function showRegion() {
      if (selected < 0) {
        regionText.textContent = 'Point at a region, or move with the arrow keys in a map, to compare it under the policies.';
        return;
      }
      const texts = runs.map((run) => {
        const frame = run.frames[at];
        const dirty = frame.dirty[selected], behind = frame.behind[selected];
        return '<code>' + escape(run.policy) + '</code> ' + STATE_NAMES[frame.states[selected]] +
          (dirty > 0 ? ', ' + dirty + ' dirty' : '') + (behind > 0 ? ', <b>' + behind + ' behind</b>' : '');
      });
      regionText.innerHTML = '<b>Region ' + selected + '</b>, ' + digits(selected * 2) + ' to ' + digits(selected * 2 + 2) +
        ' MiB, gfn 0x' + (selected * 512).toString(16) + ', ' + (story.written[selected] === '1' ? 'written' : 'never written') +
        ' by the recording: ' + texts.join(' \u00b7 ');
    }

    function render() {
      const ink = colours();
      for (const panel of panels) {
        drawMap(panel, ink);
        showCounts(panel);
      }
      for (const canvas of hero.querySelectorAll('.swatch')) if (canvas.dataset.drawn !== themeKey()) {
        drawSwatch(canvas, ink);
        canvas.dataset.drawn = themeKey();
      }
      showMoment();
      showRegion();
    }

    function select(region) {
      if (region === selected) return;
      selected = region;
      const ink = colours();
      for (const panel of panels) drawMap(panel, ink);
      showRegion();
    }

    function go(to) {
      at = Math.min(frameCount - 1, Math.max(0, to));
      render();
    }

    function stop() {
      clearInterval(timer);
      timer = 0;
      play.textContent = 'Play';
      play.setAttribute('aria-pressed', 'false');
    }

    play.addEventListener('click', () => {
      if (timer !== 0) return stop();
      if (at === frameCount - 1) at = 0;
      play.textContent = 'Pause';
      play.setAttribute('aria-pressed', 'true');
      // The whole run in about 20 seconds, at most 15 rounds a second.
      timer = setInterval(() => {
        go(at + 1);
        if (at === frameCount - 1) stop();
      }, Math.max(66, 20000 / frameCount));
    });
    range.addEventListener('input', () => {
      stop();
      go(Number(range.value));
    });
    hero.querySelector('.back').addEventListener('click', () => (stop(), go(at - 1)));
    hero.querySelector('.next').addEventListener('click', () => (stop(), go(at + 1)));
    go(frameCount - 1);
    return render;
  }

  // ---- theme and size ---------------------------------------------------------------------------------------------

  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const theme = document.getElementById('theme');
  const themes = ['auto', 'light', 'dark'];
  let chosen = 'auto';
  // Storage is refused in some browsers for files; the choice then lasts as long as the page.
  try { chosen = themes.includes(localStorage.getItem('penumbra-theme')) ? localStorage.getItem('penumbra-theme') : 'auto'; } catch {}

  function themeKey() {
    return (chosen === 'auto' ? (dark.matches ? 'dark' : 'light') : chosen) + window.devicePixelRatio + (window.innerWidth > 640);
  }

  function applyTheme() {
    if (chosen === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    theme.textContent = 'Theme: ' + chosen;
  }

  applyTheme();
  theme.hidden = false;
  const renderers = [...document.querySelectorAll('.story')].map(setUp).filter((render) => render !== null);
  const renderAll = () => renderers.forEach((render) => render());
  theme.addEventListener('click', () => {
    chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
    try { localStorage.setItem('penumbra-theme', chosen); } catch {}
    applyTheme();
    renderAll();
  });
  dark.addEventListener('change', renderAll);
  let resizing = 0;
  window.addEventListener('resize', () => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(renderAll);
  });
})();
`;
