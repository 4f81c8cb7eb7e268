/**
 * The remote end of a debugging session: GDB's commands on a machine's `Debugger`. A thread is a CPU; all stop and go on together.
 *
 *     GDB --- $m, $Z0, $vCont --> Stub --> Debugger --> Pc
 *         <-- $T05thread:1; ----- Stub <-- `stopped` -- who runs the machine
 *
 * Commands wait while the machine runs: all but the interrupt are about one that stands still. What isn't understood is answered by an
 * empty packet, which is the protocol's "not built"; what is malformed, or asks for what isn't there, by an error.
 */
import type { Debugger } from '../vm/machine/debugger.ts';
import { hasCrashed, type PcEnd, type PcStop } from '../vm/machine/pc.ts';
import type { PcCpu } from '../vm/machine/pc-cpu.ts';
import { MP_HALTED, MP_RUNNABLE } from '../vm/machine/pc-cpu.ts';
import { bytesOf, fromHex, MAX_PACKET, PacketLink, toHex } from './packets.ts';
import { PointList } from './point-list.ts';
import { readRegister, REGISTER_BYTES, REGISTERS, writeRegister } from './registers.ts';
import { parseResume, type Resume } from './resume.ts';
import { TARGET_XML } from './target-xml.ts';

const E_INVALID = 'E16';
const E_FAULT = 'E0e';
const OK = 'OK';
const SIGINT = 2;
const SIGTRAP = 5;
const SIGABRT = 6;
/** Packets that wait for the machine to stop; GDB sends none but one. */
const MAX_WAITING = 16;

/** Who runs the machine, and has the connection. */
export interface StubOwner {
  readonly debugger: Debugger;
  send(bytes: Uint8Array): void;
  /** The machine is to run; `Stub.stopped` or `Stub.ended` tells how that ends. */
  start(): void;
  /** It is to stop soon. */
  pause(): void;
  /** The guest is to end. */
  kill(): void;
  /** The session is over; the guest goes on. */
  detach(): void;
}

export class Stub {
  private readonly owner: StubOwner;
  private readonly debugger: Debugger;
  private readonly cpus: readonly PcCpu[];
  private readonly link: PacketLink;
  private readonly points: PointList;
  private isRunning = true;
  /** GDB waits to be told of the next stop. */
  private awaitsStop = false;
  private readonly waiting: string[] = [];
  private end: PcEnd | null = null;
  private lastStop = '';
  /** Which kinds of breakpoint GDB wants to be told apart. */
  private tellsSoftware = false;
  private tellsHardware = false;
  /** The CPU of commands about registers and memory, and that of `s` and `c`. */
  private current: PcCpu;
  private continued: PcCpu | null = null;

  /** The owner has just asked the machine to stop, or it stands still already (`stopped`). */
  constructor(owner: StubOwner) {
    this.owner = owner;
    this.debugger = owner.debugger;
    this.cpus = owner.debugger.pc.cpus;
    this.current = owner.debugger.pc.turns.active;
    this.points = new PointList(owner.debugger);
    this.link = new PacketLink({
      send: (bytes) => owner.send(bytes),
      interrupt: () => {
        if (this.isRunning) owner.pause();
      },
      packet: (text) => {
        if (!this.isRunning) this.handle(text);
        else if (this.waiting.length < MAX_WAITING) this.waiting.push(text);
      },
    });
  }

  receive(bytes: Uint8Array): void {
    this.link.receive(bytes);
  }

  /** The machine stands still: for a breakpoint, a watched access or a step; null: it was asked to. */
  stopped(stop: PcStop | null): void {
    this.debugger.halt();
    this.current = stop?.cpu ?? this.debugger.pc.turns.active;
    this.report(stop === null ? this.stopReply(SIGINT) : this.stopReply(SIGTRAP, this.causeOf(stop)));
  }

  /** The guest has ended. One that has crashed can still be looked at. */
  ended(end: PcEnd): void {
    this.end = end;
    this.debugger.halt();
    this.report(hasCrashed(end) ? this.stopReply(SIGABRT) : this.endReply());
  }

  /** Nobody debugs any more: nothing is left of it. */
  release(): void {
    this.points.clear();
    this.debugger.halt();
  }

  // ---- stops -------------------------------------------------------------------------------------------------------

  private report(reply: string): void {
    this.isRunning = false;
    this.lastStop = reply;
    if (this.awaitsStop) this.link.send(reply);
    this.awaitsStop = false;
    while (this.waiting.length > 0 && !this.isRunning) this.handle(this.waiting.shift()!);
  }

  private stopReply(signal: number, why = ''): string {
    return `T${byte(signal)}${why}thread:${threadOf(this.current)};`;
  }

  private endReply(): string {
    return this.end !== null && hasCrashed(this.end) ? `X${byte(SIGABRT)}` : `W${byte(this.end?.status ?? 0)}`;
  }

  private causeOf({ cpu, cause }: PcStop): string {
    if (cause === 'code') {
      const isSoftware = this.points.isSoftware(cpu);
      if (isSoftware && this.tellsSoftware) return 'swbreak:;';
      return !isSoftware && this.tellsHardware ? 'hwbreak:;' : '';
    }
    const hit = cause === 'data' ? this.debugger.hitOf(cpu) : null;
    if (hit === null) return '';
    const word = { write: 'watch', read: 'rwatch', access: 'awatch', code: '' }[hit.on];
    return `${word}:${hit.address.toString(16)};`;
  }

  // ---- commands ----------------------------------------------------------------------------------------------------

  private handle(text: string): void {
    const answer = this.answer(text);
    if (answer !== null) this.link.send(answer);
  }

  /** Null: none, or a later one. */
  private answer(text: string): string | null {
    const rest = text.slice(1);
    switch (text.charAt(0)) {
      case '?':
        return this.lastStop;
      case 'g':
        return toHex(this.readAll());
      case 'G':
        return this.writeAll(rest);
      case 'p':
        return this.readOne(rest);
      case 'P':
        return this.writeOne(rest);
      case 'm':
        return this.readMemory(rest);
      case 'M':
        return this.writeMemory(rest, fromHex);
      case 'X':
        return this.writeMemory(rest, bytesOf);
      case 'Z':
        return this.points.insert(rest) ?? E_INVALID;
      case 'z':
        return this.points.remove(rest) ?? E_INVALID;
      case 'H':
        return this.chooseThread(rest);
      case 'T':
        return this.cpuOf(rest) === null ? E_INVALID : OK;
      case 'q':
      case 'Q':
        return this.query(text);
      case 'D':
        this.link.send(OK);
        this.owner.detach();
        return null;
      case 'k':
        this.owner.kill();
        return null;
      case 'c':
      case 'C':
      case 's':
      case 'S':
      case 'v':
        return this.verbose(text);
      default:
        return '';
    }
  }

  private verbose(text: string): string | null {
    if (text === 'vCont?') return 'vCont;c;C;s;S';
    if (text.startsWith('vKill')) {
      this.link.send(OK);
      this.owner.kill();
      return null;
    }
    if (text.startsWith('v') && !text.startsWith('vCont;')) return '';
    const resume = parseResume(text, this.cpus, this.continued ?? this.current);
    return resume === null ? E_INVALID : this.resume(resume);
  }

  private resume({ steps, goesOn, at }: Resume): string | null {
    if (this.end !== null) return this.endReply();
    if (at !== null && !writeRegister(this.current.cpu, RIP, littleEndian(at))) return E_INVALID;
    this.debugger.resume(steps, goesOn);
    this.isRunning = true;
    this.awaitsStop = true;
    this.owner.start();
    return null;
  }

  private query(text: string): string {
    const name = /^[A-Za-z]+/.exec(text)?.[0] ?? '';
    switch (name) {
      case 'qSupported':
        this.tellsSoftware = text.includes('swbreak+');
        this.tellsHardware = text.includes('hwbreak+');
        return `PacketSize=${MAX_PACKET.toString(16)};qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+`;
      case 'QStartNoAckMode':
        this.link.acknowledges = false;
        return OK;
      case 'qXfer':
        return transfer(text);
      case 'qAttached':
        return '1';
      case 'qC':
        return `QC${threadOf(this.current)}`;
      case 'qfThreadInfo':
        return `m${this.cpus.map(threadOf).join(',')}`;
      case 'qsThreadInfo':
        return 'l';
      case 'qThreadExtraInfo':
        return this.describeThread(text.slice(text.indexOf(',') + 1));
      default:
        return '';
    }
  }

  // ---- threads -----------------------------------------------------------------------------------------------------

  /** `g` or `c`, then a thread; 0 any, -1 all. */
  private chooseThread(text: string): string {
    const id = text.slice(1);
    const any = id === '0' || id === '-1';
    const cpu = any ? this.current : this.cpuOf(id);
    if (cpu === null) return E_INVALID;
    if (text.startsWith('g')) this.current = cpu;
    else if (text.startsWith('c')) this.continued = any ? null : cpu;
    else return E_INVALID;
    return OK;
  }

  private cpuOf(id: string): PcCpu | null {
    return /^[0-9a-f]{1,4}$/i.test(id) ? (this.cpus[Number.parseInt(id, 16) - 1] ?? null) : null;
  }

  private describeThread(id: string): string {
    const cpu = this.cpuOf(id);
    if (cpu === null) return E_INVALID;
    const state = cpu.mpState === MP_RUNNABLE ? 'running' : cpu.mpState === MP_HALTED ? 'halted' : 'not started';
    return toHex(bytesOf(`CPU ${cpu.index} [${state}]`));
  }

  // ---- registers and memory ----------------------------------------------------------------------------------------

  private readAll(): Uint8Array {
    const all = new Uint8Array(REGISTER_BYTES);
    let at = 0;
    for (const register of REGISTERS) {
      all.set(readRegister(this.current.cpu, register), at);
      at += register.bits / 8;
    }
    return all;
  }

  private writeAll(text: string): string {
    const all = fromHex(text);
    if (all === null || all.length !== REGISTER_BYTES) return E_INVALID;
    let at = 0;
    let isDone = true;
    for (const register of REGISTERS) {
      const bytes = all.subarray(at, at + register.bits / 8);
      if (!writeRegister(this.current.cpu, register, bytes)) isDone = false;
      at += bytes.length;
    }
    return isDone ? OK : E_INVALID;
  }

  private readOne(text: string): string {
    const register = REGISTERS[hexNumber(text)];
    return register === undefined ? E_INVALID : toHex(readRegister(this.current.cpu, register));
  }

  private writeOne(text: string): string {
    const [number, value = ''] = text.split('=');
    const register = REGISTERS[hexNumber(number)];
    const bytes = fromHex(value);
    if (register === undefined || bytes === null) return E_INVALID;
    return writeRegister(this.current.cpu, register, bytes) ? OK : E_INVALID;
  }

  private readMemory(text: string): string {
    const [, address, length] = /^([0-9a-f]{1,16}),([0-9a-f]{1,8})$/i.exec(text) ?? [];
    if (address === undefined) return E_INVALID;
    const most = Math.min(hexNumber(length), MAX_PACKET / 2);
    const bytes = this.debugger.read(this.current, BigInt(`0x${address}`), most);
    return bytes.length === 0 && most > 0 ? E_FAULT : toHex(bytes);
  }

  private writeMemory(text: string, decode: (data: string) => Uint8Array | null): string {
    const [, address, length, data = ''] = /^([0-9a-f]{1,16}),([0-9a-f]{1,8}):([^]*)$/i.exec(text) ?? [];
    if (address === undefined) return E_INVALID;
    const bytes = decode(data);
    if (bytes === null || bytes.length !== hexNumber(length)) return E_INVALID;
    return this.debugger.write(this.current, BigInt(`0x${address}`), bytes) ? OK : E_FAULT;
  }
}

const RIP = REGISTERS.find(({ name }) => name === 'rip')!;

/** qXfer:features:read:target.xml:OFFSET,LENGTH */
function transfer(text: string): string {
  const [, annex, offset, length] = /^qXfer:features:read:([^:]*):([0-9a-f]{1,8}),([0-9a-f]{1,8})$/i.exec(text) ?? [];
  if (annex === undefined) return text.startsWith('qXfer:features:read:') ? 'E00' : '';
  if (annex !== 'target.xml') return 'E00';
  const from = hexNumber(offset);
  const part = TARGET_XML.slice(from, from + Math.min(hexNumber(length), MAX_PACKET - 16));
  return `${from + part.length < TARGET_XML.length ? 'm' : 'l'}${part}`;
}

const threadOf = (cpu: PcCpu): string => (cpu.index + 1).toString(16);
const byte = (value: number): string => (value & 255).toString(16).padStart(2, '0');
/** NaN if it is none. */
const hexNumber = (text: string): number => (/^[0-9a-f]{1,8}$/i.test(text) ? Number.parseInt(text, 16) : Number.NaN);

function littleEndian(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}
