/** Damaged `.pntrace` files: a TraceError that says where, or a sound recording (which is replayed if it is small). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Prng } from '../../base/prng.ts';
import { splitPntrace } from '../../formats/pntrace.ts';
import { encodePntrace } from '../../formats/pntrace-encode.ts';
import { syntheticTrace } from '../../lab/synthetic.ts';
import { CliError } from '../cli-error.ts';
import { loadTrace } from '../trace-files.ts';
import type { Fuzzer } from './harness.ts';
import { type Json, mutateBytes, mutateJson } from './mutate.ts';
import { checkRun, runProgram } from './program-run.ts';

const HEADER_AT = 12;
const gzip = (bytes: Uint8Array): Uint8Array => gzipSync(bytes, { level: 1 });

export function pntraceFuzzer(): Fuzzer {
  const folder = mkdtempSync(join(tmpdir(), 'penumbra-fuzz-'));
  const path = join(folder, 'x.pntrace');
  const files = [1, 2, 3, 7].map((seed) =>
    encodePntrace(syntheticTrace(seed, { regions: 2 + (seed & 1), epochs: 6 + seed, vcpus: 1 + (seed & 1) }), gzip),
  );
  return {
    name: 'pntrace',
    async run(prng) {
      writeFileSync(path, damaged(prng.pick(files), prng));
      let epochs: number;
      let memBytes: number;
      try {
        ({ epochs, memBytes } = loadTrace(path).header);
      } catch (error) {
        if (error instanceof CliError && error.message.startsWith(path) && !error.message.includes('\n'))
          return 'refused';
        throw error;
      }
      if (memBytes > 2 ** 26 || epochs > 1000 || prng.chance(0.8)) return 'read';
      const args = ['replay', path, '--round-epochs', String(1 + prng.int(5)), ...(prng.chance(0.5) ? ['--json'] : [])];
      const run = await runProgram(args);
      checkRun(args, run);
      return `replayed: status ${run.status}`;
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** In the bytes of the file, in the header's JSON, or in the payload under a header that tells its lengths. */
function damaged(file: Uint8Array, prng: Prng): Uint8Array {
  if (prng.chance(0.2)) return mutateBytes(file, prng);
  const { header, packed } = splitPntrace(file);
  const json = structuredClone(header) as unknown as Json & object;
  if (prng.chance(0.4)) return assembled(mutateJson(json, prng), packed);
  const payload = mutateBytes(gunzipSync(packed), prng, 2);
  return prng.chance(0.8)
    ? assembled(fitted(json, payload.length, prng), gzip(payload))
    : assembled(json, gzip(payload));
}

/** The header with the payload's length, so that its contents are looked at; the difference goes to one section. */
function fitted(json: Json & object, payloadBytes: number, prng: Prng): Json {
  const header = json as unknown as { payloadBytes: number; sections: Record<string, number> };
  header.sections[prng.pick(['lists', 'tokens', 'literals'])] += payloadBytes - header.payloadBytes;
  header.payloadBytes = payloadBytes;
  return json;
}

function assembled(header: Json, packed: Uint8Array): Uint8Array {
  if (typeof header === 'object' && header !== null && 'gzipBytes' in header) header['gzipBytes'] = packed.length;
  const json = new TextEncoder().encode(JSON.stringify(header));
  const out = new Uint8Array(HEADER_AT + json.length + packed.length);
  out.set(new TextEncoder().encode('PNTRACE1'));
  new DataView(out.buffer).setUint32(8, json.length, true);
  out.set(json, HEADER_AT);
  out.set(packed, HEADER_AT + json.length);
  return out;
}
