/**
 * Task switches: by JMP, CALL, a task gate of the IDT, and by IRET with NT. What is wrong with the new task's descriptor is a fault
 * of the old task; once the registers are the new task's, so are the faults.
 */
import { ACCESS_IMPLICIT, ACCESS_WRITE } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { ripOf } from '../exceptions.ts';
import {
  attributesOf,
  baseOf,
  D_BIG,
  D_CODE,
  D_CONFORMING,
  D_MEMORY,
  D_PRESENT,
  D_WRITABLE,
  type Descriptor,
  descriptorAddress,
  dplOf,
  limitOf,
  markAccessed,
  readDescriptor,
  segmentAllows,
  segmentsChanged,
  selectorOf,
  setRealSegment,
  setSegment,
  setSegmentRaw,
  typeOf,
  VECTOR_NP,
  VECTOR_SS,
  VECTOR_TS,
} from '../segments.ts';
import { CPL, CR0, CS, CS_BASE, DS, ES, FS, GPR, GS, HIDDEN_BASE, LDTR, LINEAR_RIP, RSP, SS, TR } from '../state.ts';
import { loadTaskCr3, setTaskSwitched } from './control-registers.ts';
import { FAULT, LEAVE } from './outcome.ts';
import { stackDescriptor, taskLayout, type TaskLayout } from './task-state.ts';

const RFLAGS_RF = 1 << 16;
const RFLAGS_NT = 1 << 14;
const RFLAGS_VM = 1 << 17;
const BUSY = 1 << 9;
const AVAILABLE_TYPES = [1, 9];
const BUSY_TYPES = [3, 11];
const RFLAGS_KNOWN = 0x277fd5;

/** `nested`: CALL and gates, the new task can return. */
export type SwitchKind = 'jump' | 'nested' | 'return';

/**
 * Finds the descriptor of a task: `vector` with the selector if it is none, or not in the right state; null after that.
 * Selectors of the LDT name none.
 */
export function taskDescriptor(
  cpu: Cpu,
  selector: number,
  returning: boolean,
  vector: number,
  external: number,
): Descriptor | null {
  const { state } = cpu;
  const error = (selector & 0xfffc) | external;
  if (selector & 4 || (selector & 0xfffc) === 0) {
    state.raise(vector, error);
    return null;
  }
  const d = readDescriptor(cpu, selector, vector, external);
  if (!d) return null;
  if (d.hi & D_MEMORY || !(returning ? BUSY_TYPES : AVAILABLE_TYPES).includes(typeOf(d.hi))) {
    state.raise(vector, error);
    return null;
  }
  if (!(d.hi & D_PRESENT)) {
    state.raise(VECTOR_NP, error);
    return null;
  }
  return d;
}

/**
 * Goes to another task, at LINEAR_RIP as the old one's next instruction. False after an exception; `cpu.taskSwitched` tells whether it
 * is the new task's. `errorCode`: to be pushed there, or null. `resumes`: the old task begins an instruction again (RF).
 */
export function switchTask(
  cpu: Cpu,
  selector: number,
  descriptor: Descriptor,
  kind: SwitchKind,
  external: number,
  errorCode: number | null,
  resumes: boolean,
): boolean {
  const { state } = cpu;
  const layout = taskLayout(descriptor.hi);
  if (limitOf(descriptor) >>> 0 < layout.lastByte) {
    state.raise(VECTOR_TS, (selector & 0xfffc) | external);
    return false;
  }
  const image = readTask(cpu, baseOf(descriptor), layout);
  if (!image || !saveTask(cpu, kind, resumes)) return false;
  const before = selectorOf(cpu, TR);
  if (kind !== 'nested' && !setBusy(cpu, before, false)) return false;
  if (kind === 'nested' && !storeWord(cpu, baseOf(descriptor), before)) return false;
  if (kind !== 'return' && !setBusy(cpu, selector, true)) return false;
  cpu.taskSwitched = true;
  const attributes = (descriptor.hi & 0x00f0ff00) | BUSY;
  setSegmentRaw(cpu, TR, selector, attributes, limitOf(descriptor), baseOf(descriptor), 0);
  const good = loadTask(cpu, image, layout, kind, external);
  if (good && errorCode !== null) return pushError(cpu, errorCode, layout.bytes);
  return good;
}

/** An instruction that switches: a fault of the new task comes behind the instruction. */
export function toTask(cpu: Cpu, selector: number, descriptor: Descriptor, kind: SwitchKind): number {
  cpu.taskSwitched = false;
  switchTask(cpu, selector, descriptor, kind, 0, null, false);
  return cpu.taskSwitched ? LEAVE : FAULT;
}

function storeWord(cpu: Cpu, address: number, value: number): boolean {
  return cpu.memory.store(address, 0, 2, ACCESS_IMPLICIT | ACCESS_WRITE, value);
}

function setBusy(cpu: Cpu, selector: number, busy: boolean): boolean {
  const { memory } = cpu;
  const at = descriptorAddress(cpu, selector & 0xfff8);
  if (!at) return true;
  const address = (at[0] + 4) | 0;
  if (!memory.load(address, 0, 4, ACCESS_IMPLICIT)) return false;
  const hi = busy ? memory.lo | BUSY : memory.lo & ~BUSY;
  return memory.store(address, 0, 4, ACCESS_IMPLICIT | ACCESS_WRITE, hi);
}

/** The words of a task's state, by their offsets; null after a fault. */
function readTask(cpu: Cpu, base: number, layout: TaskLayout): DataView | null {
  const { memory } = cpu;
  const image = new DataView(new ArrayBuffer(0x68));
  for (let at = 0; at < layout.lastByte; at += 2) {
    if (!memory.load((base + at) | 0, 0, 2, ACCESS_IMPLICIT)) return null;
    image.setUint16(at, memory.lo, true);
  }
  return image;
}

/** Writes the registers of now into the task state segment of now. */
function saveTask(cpu: Cpu, kind: SwitchKind, resumes: boolean): boolean {
  const { state, memory } = cpu;
  const layout = taskLayout(attributesOf(cpu, TR));
  const base = state.get(HIDDEN_BASE + TR * 8);
  const put = (at: number, bytes: number, value: number) =>
    memory.store((base + at) | 0, 0, bytes, ACCESS_IMPLICIT | ACCESS_WRITE, value);
  const flags = (kind === 'return' ? state.rflags & ~RFLAGS_NT : state.rflags) | (resumes ? RFLAGS_RF : 0);
  if (!put(layout.ip, layout.bytes, ripOf(cpu)[0]) || !put(layout.flags, layout.bytes, flags)) return false;
  for (let i = 0; i < 8; i++) {
    if (!put(layout.registers + i * layout.bytes, layout.bytes, state.get(GPR + i * 8))) return false;
  }
  for (let i = 0; i < layout.segmentCount; i++) {
    if (!put(layout.segments + i * layout.segmentStep, 2, selectorOf(cpu, i))) return false;
  }
  return true;
}

/** Takes the registers of a task, then loads its segments. */
function loadTask(cpu: Cpu, image: DataView, layout: TaskLayout, kind: SwitchKind, external: number): boolean {
  const { state } = cpu;
  const word = (at: number) => (layout.bytes === 4 ? image.getInt32(at, true) : image.getUint16(at, true));
  const wide = layout.bytes === 4;
  setTaskSwitched(cpu);
  if (layout.cr3 !== 0 && state.get(CR0) < 0 && !loadTaskCr3(cpu, image.getInt32(layout.cr3, true))) return false;
  const flags = (word(layout.flags) & RFLAGS_KNOWN) | (kind === 'nested' ? RFLAGS_NT : 0);
  state.rflags = flags;
  for (let i = 0; i < 8; i++) {
    const at = GPR + i * 8;
    const value = word(layout.registers + i * layout.bytes);
    state.setPair(at, wide ? value : (state.get(at) & 0xffff0000) | value, 0);
  }
  const selectors = Array.from({ length: 6 }, (_, i) =>
    i < layout.segmentCount ? image.getUint16(layout.segments + i * layout.segmentStep, true) : 0,
  );
  const cpl = flags & RFLAGS_VM ? 3 : selectors[CS] & 3;
  state.set(CPL, cpl);
  const real = (flags & RFLAGS_VM) !== 0;
  for (let i = 0; i < 6; i++) {
    if (real) setRealSegment(cpu, i, selectors[i]);
    else setSegmentRaw(cpu, i, selectors[i], i === CS && wide ? D_BIG : 0, -1, 0, 0);
  }
  segmentsChanged(cpu);
  state.setPair(LINEAR_RIP, (state.get(CS_BASE) + word(layout.ip)) | 0, 0);
  setSegmentRaw(cpu, LDTR, image.getUint16(layout.ldt, true), 0, 0, 0, 0);
  if (!loadLdt(cpu, external)) return false;
  const good = real || loadSegments(cpu, selectors, cpl, external);
  cpu.setRip(word(layout.ip), 0);
  if (!good) return false;
  if (layout.trap !== 0 && image.getUint16(layout.trap, true) & 1) cpu.taskTrap();
  return true;
}

function loadSegments(cpu: Cpu, selectors: readonly number[], cpl: number, external: number): boolean {
  const loaded =
    loadCode(cpu, selectors[CS], external) &&
    loadStack(cpu, selectors[SS], cpl, external) &&
    [ES, DS, FS, GS].every((index) => loadData(cpu, index, selectors[index], cpl, external));
  segmentsChanged(cpu);
  return loaded;
}

function refuse(cpu: Cpu, vector: number, selector: number, external: number): false {
  cpu.state.raise(vector, (selector & 0xfffc) | external);
  return false;
}

function loadLdt(cpu: Cpu, external: number): boolean {
  const selector = selectorOf(cpu, LDTR);
  if ((selector & 0xfffc) === 0) return true;
  if (selector & 4) return refuse(cpu, VECTOR_TS, selector, external);
  const d = readDescriptor(cpu, selector, VECTOR_TS, external);
  if (!d) return false;
  if (d.hi & D_MEMORY || typeOf(d.hi) !== 2 || !(d.hi & D_PRESENT)) return refuse(cpu, VECTOR_TS, selector, external);
  setSegment(cpu, LDTR, selector, d);
  return true;
}

function loadCode(cpu: Cpu, selector: number, external: number): boolean {
  if ((selector & 0xfffc) === 0) return refuse(cpu, VECTOR_TS, selector, external);
  const d = readDescriptor(cpu, selector, VECTOR_TS, external);
  if (!d) return false;
  const level = d.hi & D_CONFORMING ? dplOf(d.hi) <= (selector & 3) : dplOf(d.hi) === (selector & 3);
  if ((d.hi & (D_MEMORY | D_CODE)) !== (D_MEMORY | D_CODE) || !level) return refuse(cpu, VECTOR_TS, selector, external);
  if (!(d.hi & D_PRESENT)) return refuse(cpu, VECTOR_NP, selector, external);
  if (!markAccessed(cpu, selector, d)) return false;
  setSegment(cpu, CS, selector, d);
  return true;
}

function loadStack(cpu: Cpu, selector: number, cpl: number, external: number): boolean {
  const d = stackDescriptor(cpu, selector, cpl, external);
  if (!d || !markAccessed(cpu, selector, d)) return false;
  setSegment(cpu, SS, selector, d);
  return true;
}

function loadData(cpu: Cpu, index: number, selector: number, cpl: number, external: number): boolean {
  if ((selector & 0xfffc) === 0) {
    setSegmentRaw(cpu, index, selector, 0, 0, 0, 0);
    return true;
  }
  const d = readDescriptor(cpu, selector, VECTOR_TS, external);
  if (!d) return false;
  const conforming = (d.hi & (D_CODE | D_CONFORMING)) === (D_CODE | D_CONFORMING);
  const readable = (d.hi & D_MEMORY) !== 0 && (!(d.hi & D_CODE) || (d.hi & D_WRITABLE) !== 0);
  const level = conforming || dplOf(d.hi) >= Math.max(cpl, selector & 3);
  if (!readable || !level) return refuse(cpu, VECTOR_TS, selector, external);
  if (!(d.hi & D_PRESENT)) return refuse(cpu, VECTOR_NP, selector, external);
  if (!markAccessed(cpu, selector, d)) return false;
  setSegment(cpu, index, selector, d);
  return true;
}

/** The error code of the exception that led here, onto the new task's stack. */
function pushError(cpu: Cpu, error: number, bytes: number): boolean {
  const { state, memory } = cpu;
  const attributes = attributesOf(cpu, SS);
  const mask = attributes & D_BIG ? -1 : 0xffff;
  const pointer = (state.get(RSP) - bytes) & mask;
  const limit = cpu.limitOf(SS);
  if (!segmentAllows(attributes, limit, !state.realSegments, pointer, bytes, true)) {
    state.raise(VECTOR_SS, 1);
    return false;
  }
  const at = (pointer + state.get(HIDDEN_BASE + SS * 8)) | 0;
  const access = state.get(CPL) === 3 ? 4 : 0;
  if (!memory.store(at, 0, bytes, access, error, 0, true)) return false;
  state.setPair(RSP, (state.get(RSP) & ~mask) | pointer, 0);
  return true;
}
