/**
 * Breakpoints and watchpoints by GDB's packets: `Z`, a type, an address, and the number of bytes. None is in the guest's memory, so
 * those that GDB calls software breakpoints (0) differ from the others (1) in nothing but what it is told when one is hit.
 */
import { LINEAR_RIP } from '../cpu/state.ts';
import { type BreakpointKind, type Debugger, MAX_WATCH_BYTES } from '../vm/machine/debugger.ts';
import type { PcCpu } from '../vm/machine/pc-cpu.ts';

const SOFTWARE = 0;
const TYPES: readonly BreakpointKind[] = ['code', 'code', 'write', 'read', 'access'];

interface Point {
  readonly type: number;
  readonly address: bigint;
  readonly bytes: number;
}

export class PointList {
  private readonly debugger: Debugger;
  private points: Point[] = [];

  constructor(debug: Debugger) {
    this.debugger = debug;
  }

  /** The answer; null if it isn't one. Twice is as good as once. */
  insert(text: string): string | null {
    const point = parse(text);
    if (point === null || typeof point === 'string') return point;
    if (!this.points.some((p) => isSame(p, point))) this.points.push(point);
    this.debugger.insert(TYPES[point.type], point.address, point.bytes);
    return 'OK';
  }

  /** One that isn't there is gone. */
  remove(text: string): string | null {
    const point = parse(text);
    if (point === null || typeof point === 'string') return point;
    this.points = this.points.filter((p) => !isSame(p, point));
    const isWanted = this.points.some((p) => TYPES[p.type] === 'code' && p.address === point.address);
    if (TYPES[point.type] !== 'code' || !isWanted) this.debugger.remove(TYPES[point.type], point.address, point.bytes);
    return 'OK';
  }

  clear(): void {
    this.points = [];
    this.debugger.removeAll();
  }

  /** Of the breakpoint that a CPU stands at. */
  isSoftware({ cpu }: PcCpu): boolean {
    const address = cpu.state.big(LINEAR_RIP);
    return this.points.some((p) => p.type === SOFTWARE && p.address === address);
  }
}

/** Null: malformed. Text: there is no such type. */
function parse(text: string): Point | string | null {
  const [, type, address, length] = /^([0-9a-f]+),([0-9a-f]{1,16}),([0-9a-f]{1,8})(;.*)?$/i.exec(text) ?? [];
  if (type === undefined) return null;
  const kind = TYPES[Number.parseInt(type, 16)];
  if (kind === undefined) return '';
  // Of code the length is only which instruction GDB would have put there.
  const bytes = kind === 'code' ? 1 : Number.parseInt(length, 16);
  if (bytes < 1 || bytes > MAX_WATCH_BYTES) return null;
  return { type: Number.parseInt(type, 16), address: BigInt(`0x${address}`), bytes };
}

function isSame(a: Point, b: Point): boolean {
  return a.type === b.type && a.address === b.address && a.bytes === b.bytes;
}
