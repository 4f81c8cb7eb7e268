import { Script } from 'node:vm';
import { describe, expect, it } from 'vitest';
import type { PageTrace } from '../formats/pntrace.ts';
import { STORY_POLICIES } from './policies.ts';
import { mapColumns } from './report-data.ts';
import { renderReport } from './report-html.ts';
import { type Story, tellStory } from './story.ts';
import { syntheticTrace } from './synthetic.ts';

function tell(trace: PageTrace): Story {
  return tellStory(trace, STORY_POLICIES, { roundEpochs: 20, seed: 1, timeline: true });
}
const story = tell(syntheticTrace(4));
const command = 'penumbra story synthetic:4';
const html = renderReport([story], { command });

/** The text of the only element that the pattern's group matches. */
function inside(text: string, pattern: RegExp): string {
  const found = [...text.matchAll(pattern)];
  expect(found).toHaveLength(1);
  return found[0][1];
}
const dataOf = (text: string): string => inside(text, /<script type="application\/json"[^>]*>([^]*?)<\/script>/g);

describe('the HTML report', () => {
  it('forbids itself any network', () => {
    expect(html).toContain(`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; `);
    expect(html).not.toMatch(/https?:|\/\/[a-z]+\.|@import|url\(/i);
    expect(html.match(/<link [^>]*>/g)).toEqual(['<link rel="icon" href="data:,">']);
    expect(html).not.toMatch(/<(?:img|iframe|object|embed|audio|video|base|form)\b/i);
    for (const [, address] of html.matchAll(/(?:href|src)="([^"]*)"/g))
      expect(address).toMatch(/^(?:#story-\d+|data:,)$/);
  });

  it('holds what is hostile in a recording as text', () => {
    const evil = `</script><script>alert(1)</script><!-- "'&\u2028`;
    const trace = syntheticTrace(4);
    const text = renderReport([tell({ ...trace, header: { ...trace.header, name: evil, title: evil } })], {
      command: evil,
    });
    expect(text.match(/<script\b/g)).toHaveLength(2);
    expect(text.match(/<\/script>/g)).toHaveLength(2);
    expect(text).not.toContain('<!--');
    expect(text).not.toContain('\u2028alert');
    expect(JSON.parse(dataOf(text)).stories[0].name).toBe(evil);
    expect(text).toContain('&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;!-- &quot;&#39;&amp;');
  });

  it('has a script that is JavaScript', () => {
    const source = inside(html, /<script>([^]*?)<\/script>/g);
    expect(() => new Script(source)).not.toThrow();
  });

  it('is the same for the same story', () => {
    expect(renderReport([tell(syntheticTrace(4))], { command })).toBe(html);
  });

  it('says so when something between the numbers is not as it must be', () => {
    const relations = [{ text: 'lazy loses no <page>', holds: false }];
    const text = renderReport([{ ...story, relations }], { command });
    expect(text).toContain('Not as it must be');
    expect(text).toContain('lazy loses no &lt;page&gt;');
    expect(html).not.toContain('Not as it must be');
  });

  it('cannot be made of a story without a timeline', () => {
    const told = tellStory(syntheticTrace(4), STORY_POLICIES, { roundEpochs: 20, seed: 1 });
    expect(() => renderReport([told], { command })).toThrow('kept no timeline');
  });

  it('gives a script what it needs to draw each frame again', () => {
    const { runs } = JSON.parse(dataOf(html)).stories[0];
    story.runs.forEach(({ timeline }, i) => {
      const states = new Uint8Array(story.profile.regions);
      const behind = new Uint16Array(story.profile.regions);
      timeline?.frames.forEach((frame, n) => {
        const data = runs[i].frames[n];
        const dirty = new Uint16Array(story.profile.regions);
        applyChanges(states, data.states);
        applyChanges(behind, data.behind);
        applyChanges(dirty, data.dirty);
        expect([states, behind, dirty]).toEqual([frame.states, frame.behindPages, frame.dirtyPages]);
      });
    });
  });

  // biome-ignore format: a table
  it.each([[1, 8], [128, 8], [129, 16], [512, 16], [2048, 32], [65536, 256]])('shows %i regions in rows of %i', (regions, columns) => {
    expect(mapColumns(regions)).toBe(columns);
  });
});

function applyChanges(into: Uint8Array | Uint16Array, pairs: readonly number[]): void {
  for (let i = 0, at = 0; i < pairs.length; i += 2) {
    at += pairs[i];
    into[at] = pairs[i + 1];
  }
}
