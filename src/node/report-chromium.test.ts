/**
 * The report of the embedded recordings, opened in Debian's Chromium as a user opens it: from the disk, in both colour
 * schemes and two widths. Reported as skipped where there is no Chromium. Screenshots go to `out/`, to be looked at.
 */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type Browser, chromium, type Locator, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { count } from '../lab/narrative.ts';
import { STORY_POLICIES } from '../lab/policies.ts';
import { renderReport } from '../lab/report-html.ts';
import { type Story, tellStory } from '../lab/story.ts';
import { writeWhole } from './atomic-file.ts';
import { EMBEDDED_TRACES, loadTrace } from './trace-files.ts';

const CHROMIUM = '/usr/bin/chromium';
const missing = existsSync(CHROMIUM) ? undefined : `${CHROMIUM} is not installed (apt-get install chromium)`;
const OUT = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'out');
const REPORT = join(OUT, 'report-chromium.html');
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const MOST_BYTES = 1.5e6;

let browser: Browser | undefined;
let stories: Story[] = [];

beforeAll(async () => {
  if (missing !== undefined) return;
  mkdirSync(OUT, { recursive: true });
  stories = EMBEDDED_TRACES.map((name) =>
    tellStory(loadTrace(name), STORY_POLICIES, { roundEpochs: 50, seed: 1, timeline: true }),
  );
  writeWhole(REPORT, [renderReport(stories, { command: 'penumbra story' })]);
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
}, 300_000);
afterAll(() => browser?.close());

interface Opened {
  readonly page: Page;
  /** Console errors and warnings, exceptions, and requests for anything but the file. */
  readonly complaints: string[];
}

async function open(colorScheme: 'light' | 'dark', width = 1280): Promise<Opened> {
  if (browser === undefined) throw new Error('no browser');
  const page = await browser.newPage({ colorScheme, viewport: { width, height: 900 } });
  const complaints: string[] = [];
  const address = pathToFileURL(REPORT).href;
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
  page.on('request', (request) => {
    if (request.url() !== address && !request.url().startsWith('data:')) complaints.push(`request: ${request.url()}`);
  });
  await page.goto(address);
  return { page, complaints };
}

/** What a canvas shows, as far as two of them can be compared. */
const pixels = (canvas: Locator): Promise<string> => canvas.evaluate((element) => element.toDataURL());
const section = (page: Page, index: number): Locator => page.locator(`#story-${index}`);

describe("the report in Debian's Chromium", () => {
  it.for(['light', 'dark'] as const)('opens without a complaint in %s, at both widths', async (scheme, { skip }) => {
    if (missing !== undefined) skip(missing);
    for (const width of [1280, 420]) {
      const { page, complaints } = await open(scheme, width);
      await page.screenshot({ path: join(OUT, `report-${scheme}-${width}.png`) });
      await page.screenshot({ path: join(OUT, `report-${scheme}-${width}-full.png`), fullPage: true });
      expect(complaints).toEqual([]);
      const paper = await page.evaluate('getComputedStyle(document.body).backgroundColor');
      expect(paper).toBe(scheme === 'light' ? 'rgb(252, 251, 248)' : 'rgb(21, 23, 27)');
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width);
      await page.close();
    }
  });

  it('is small enough to be mailed', ({ skip }) => {
    if (missing !== undefined) skip(missing);
    expect(statSync(REPORT).size).toBeLessThan(MOST_BYTES);
  });

  it('shows the numbers of the table at the last round', async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { page } = await open('light');
    for (const [index, { runs }] of stories.entries()) {
      for (const [i, { result }] of runs.entries()) {
        const panel = section(page, index).locator(`.panel[data-run="${i}"]`);
        const shown = async (key: string): Promise<string | null> =>
          panel.locator(`td[data-key="${key}"]`).textContent();
        expect(await shown('reads')).toBe(count(result.readFaults));
        expect(await shown('writes')).toBe(count(result.writeFaults));
        expect(await shown('sent')).toBe(count(result.migration.sentPages));
        expect(await shown('behind')).toBe(count(result.migration.lostPages));
        expect(await shown('flushes')).toBe(count(result.counters.remote_tlb_flush_requests));
      }
    }
    await page.close();
  });

  it('goes through the rounds by keyboard, and draws each map anew', async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { page, complaints } = await open('light');
    const hero = section(page, 0);
    const moment = hero.locator('.moment');
    const maps = await hero.locator('.map').all();
    const seen = async (): Promise<string[]> => Promise.all(maps.map(pixels));
    const atEnd = await seen();
    await hero.locator('input[type="range"]').focus();
    await page.keyboard.press('Home');
    expect(await moment.textContent()).toMatch(/^before the log/);
    expect(await hero.locator('[data-run="2"] [data-key="large-writable"]').textContent()).toBe('512');
    const before = await seen();
    expect(new Set(before).size).toBe(1);
    await page.keyboard.press('ArrowRight');
    expect(await moment.textContent()).toMatch(/^log started/);
    expect(await hero.locator('[data-run="0"] [data-key="unmapped"]').textContent()).toBe('512');
    expect(await hero.locator('[data-run="2"] [data-key="large-read-only"]').textContent()).toBe('512');
    expect(await hero.locator('[data-run="3"] [data-key="split"]').textContent()).toBe('512');
    const started = await seen();
    expect(started).not.toContain(before[0]);
    await page.keyboard.press('End');
    expect(await seen()).toEqual(atEnd);
    expect(new Set(atEnd).size).toBe(4);
    expect(complaints).toEqual([]);
    await page.close();
  });

  it('compares one region under all policies', async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { page } = await open('dark');
    const hero = section(page, 1);
    await hero.locator('.map').first().focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowDown');
    const text = (await hero.locator('.region').textContent()) ?? '';
    expect(text).toMatch(/^Region 16, 32 to 34 MiB, gfn 0x2000, (?:never )?written by the recording: /);
    for (const { name } of STORY_POLICIES) expect(text).toContain(`${name} `);
    await page.close();
  });

  it('changes its colours on request, whatever the system prefers', async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { page, complaints } = await open('dark');
    const map = section(page, 0).locator('.map').nth(1);
    const dark = await pixels(map);
    await page.getByRole('button', { name: 'Theme: auto' }).click();
    const light = await pixels(map);
    expect(light).not.toBe(dark);
    expect(await page.evaluate('getComputedStyle(document.body).backgroundColor')).toBe('rgb(252, 251, 248)');
    await page.getByRole('button', { name: 'Theme: light' }).click();
    expect(await pixels(map)).toBe(dark);
    expect(complaints).toEqual([]);
    await page.close();
  });

  it('plays the rounds, and stops when told', async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { page, complaints } = await open('light');
    const hero = section(page, 0);
    await hero.getByRole('button', { name: 'Play' }).click();
    await expect.poll(async () => Number(await hero.locator('input[type="range"]').inputValue())).toBeGreaterThan(2);
    await hero.getByRole('button', { name: 'Pause' }).click();
    expect(await hero.getByRole('button', { name: 'Play' }).count()).toBe(1);
    expect(complaints).toEqual([]);
    await page.close();
  });
});
