/**
 * The quickest judge of an engine: replays the committed recordings, smallest packs first, and ends at the first that differs.
 * Run by scripts/mutations.mjs, which bundles it with a changed engine. Exit status 1: it differs, and how.
 */
import { compareRecordings, formatDifference } from '../compare.ts';
import { parseMachine } from '../machine.ts';
import type { PackedRecording } from '../pack.ts';
import { strip } from '../recording.ts';
import { runScript } from '../run.ts';
import { allGiven } from './given.ts';

/** The first difference in a line, or undefined. */
function judge(packed: PackedRecording): string | undefined {
  const recording = packed.load();
  try {
    const got = runScript(strip(recording), parseMachine(packed.settings));
    const [first] = compareRecordings(recording, got, { limit: 1 }).differences;
    return first && formatDifference(first);
  } catch (error) {
    return String(error);
  }
}

for (const packed of allGiven()) {
  const difference = judge(packed);
  if (difference === undefined) continue;
  process.stdout.write(`${packed.name} ${difference.slice(0, 120)}\n`);
  process.exit(1);
}
