/**
 * One TCP connection of the guest, ended here and carried on by a connection of the host's.
 *
 *     guest  -- SYN -->  connecting  -- host connected: SYN, ACK -->  open  -- FIN both ways, all acknowledged -->  gone
 *                            '--------- refused, failed, RST, no answer for long: RST ---------------------------------^
 *
 * The link loses nothing and keeps the order, so a segment that isn't the next one is dropped and asked for again, and a timer of
 * half a second repeats what the guest has not acknowledged. No options but the segment size: windows have 64 KiB.
 */
import type { ConnectionEvents, HostConnection } from './network-port.ts';
import { IP_TCP, checksum, ipPacket, pseudoSum, viewOf } from './packet.ts';

export const TCP_BYTES = 20;
const FIN = 1;
const SYN = 2;
export const RST = 4;
const PSH = 8;
export const ACK = 16;
const SEGMENT_BYTES = 1460;
const WINDOW_BYTES = 65535;
/** The host is asked to wait when so much is here for the guest. */
const MOST_WAITING = 256 * 1024;
/** Repetitions without an answer; what a guest with a closed window says is one. */
const MOST_TRIES = 20;

export interface Segment {
  readonly source: number;
  readonly destination: number;
  readonly sourcePort: number;
  readonly port: number;
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
  readonly body: Uint8Array;
}

/** A sound segment, or null. */
export function parseTcp(source: number, destination: number, bytes: Uint8Array): Segment | null {
  if (bytes.length < TCP_BYTES || checksum(bytes, pseudoSum(source, destination, IP_TCP, bytes.length)) !== 0)
    return null;
  const view = viewOf(bytes);
  const header = (bytes[12] >> 4) * 4;
  if (header < TCP_BYTES || header > bytes.length) return null;
  return {
    source,
    destination,
    sourcePort: view.getUint16(0),
    port: view.getUint16(2),
    seq: view.getInt32(4),
    ack: view.getInt32(8),
    flags: bytes[13] & 0x3f,
    window: view.getUint16(14),
    body: bytes.subarray(header),
  };
}

/** A packet from where the guest's segment went to where it came from. */
export function answer(
  to: Segment,
  seq: number,
  ack: number,
  flags: number,
  window: number,
  body: Uint8Array,
): Uint8Array {
  const isSyn = (flags & SYN) !== 0;
  const bytes = new Uint8Array(TCP_BYTES + (isSyn ? 4 : 0) + body.length);
  const view = viewOf(bytes);
  view.setUint16(0, to.port);
  view.setUint16(2, to.sourcePort);
  view.setInt32(4, seq);
  view.setInt32(8, ack);
  view.setUint8(12, ((bytes.length - body.length) / 4) << 4);
  view.setUint8(13, flags);
  view.setUint16(14, window);
  if (isSyn) view.setUint32(20, 0x02040000 | SEGMENT_BYTES);
  bytes.set(body, bytes.length - body.length);
  view.setUint16(16, checksum(bytes, pseudoSum(to.destination, to.source, IP_TCP, bytes.length)));
  return ipPacket(to.destination, to.source, IP_TCP, bytes);
}

const NOTHING = new Uint8Array(0);

export function isSyn(segment: Segment): boolean {
  return (segment.flags & (SYN | ACK | RST)) === SYN;
}

/** The refusal of a segment that nobody wants. */
export function refusal(segment: Segment): Uint8Array {
  if (segment.flags & ACK) return answer(segment, segment.ack, 0, RST, 0, NOTHING);
  const length = segment.body.length + (segment.flags & SYN ? 1 : 0) + (segment.flags & FIN ? 1 : 0);
  return answer(segment, 0, (segment.seq + length) | 0, RST | ACK, 0, NOTHING);
}

export class TcpConnection implements ConnectionEvents {
  /** Gone: to be forgotten. */
  isGone = false;
  private host: HostConnection | null = null;
  private readonly first: Segment;
  private readonly send: (packet: Uint8Array) => void;
  private isOpen = false;
  /** The guest's next byte. */
  private receiveNext: number;
  private guestEnded = false;
  /** The oldest byte that isn't acknowledged, and how many from there on have been sent. */
  private unacknowledged: number;
  private sent = 0;
  /** The same before the last repetition began: what may be acknowledged. */
  private sentMost = 0;
  /** From `unacknowledged` on. */
  private waiting = NOTHING;
  private window = 0;
  private hostEnded = false;
  private finSent = false;
  private finAcknowledged = false;
  private isPaused = false;
  private tries = 0;

  /** `syn`: the guest's first segment; `isn`: our first number. */
  constructor(syn: Segment, isn: number, send: (packet: Uint8Array) => void) {
    this.first = syn;
    this.send = send;
    this.receiveNext = (syn.seq + 1) | 0;
    this.unacknowledged = isn;
    this.window = syn.window;
  }

  attach(host: HostConnection): void {
    this.host = host;
  }

  // ---- from the host -----------------------------------------------------------------------------------------------

  connected(): void {
    if (this.isGone) return;
    this.isOpen = true;
    this.sendSyn();
  }

  data(bytes: Uint8Array): void {
    if (this.isGone) return;
    const all = new Uint8Array(this.waiting.length + bytes.length);
    all.set(this.waiting);
    all.set(bytes, this.waiting.length);
    this.waiting = all;
    if (!this.isPaused && all.length > MOST_WAITING) {
      this.isPaused = true;
      this.host?.pause();
    }
    this.sendMore();
  }

  drained(): void {
    if (!this.isGone && this.isEstablished) this.sendAck();
  }

  ended(): void {
    if (this.isGone) return;
    this.hostEnded = true;
    this.sendMore();
  }

  failed(): void {
    if (this.isGone) return;
    this.send(answer(this.first, this.isOpen ? this.sendNext : 0, this.receiveNext, RST | ACK, 0, NOTHING));
    this.close();
  }

  // ---- from the guest ----------------------------------------------------------------------------------------------

  receive(segment: Segment): void {
    if (segment.flags & RST) {
      // Only a segment in the window may end the connection.
      if (((segment.seq - this.receiveNext) | 0) >= 0) this.close();
      return;
    }
    if (!this.isOpen) return;
    if (segment.flags & SYN) return this.sendSyn();
    if (!(segment.flags & ACK)) return;
    this.acknowledge(segment);
    if (this.isGone) return;
    this.take(segment);
    this.sendMore();
    if (this.finAcknowledged && this.guestEnded) this.close();
  }

  /** Half a second has passed. */
  tick(): void {
    if (!this.isOpen || this.isGone) return;
    const unsent = this.waiting.length > 0 || (this.hostEnded && !this.finAcknowledged);
    if (this.isEstablished && !unsent) {
      this.tries = 0;
      return;
    }
    if (this.tries++ === MOST_TRIES) return this.failed();
    if (!this.isEstablished) return this.sendSyn();
    this.rewind();
    // A closed window is knocked at with one byte.
    this.sendMore(this.window === 0 ? 1 : 0);
  }

  private rewind(): void {
    this.sent = 0;
    this.finSent = false;
  }

  close(): void {
    this.isGone = true;
    this.host?.destroy();
    this.host = null;
    this.waiting = NOTHING;
  }

  private isEstablished = false;

  private get sendNext(): number {
    return (this.unacknowledged + this.sent) | 0;
  }

  private acknowledge({ ack, window }: Segment): void {
    let count = (ack - this.unacknowledged) | 0;
    if (!this.isEstablished) {
      if (count !== 1) return;
      this.isEstablished = true;
      this.unacknowledged = ack;
      this.sent = 0;
      this.sentMost = 0;
      count = 0;
    }
    if (count < 0 || count > this.sentMost) return;
    this.window = window;
    // A guest that answers at a closed window is there, however long it reads nothing.
    if (window === 0) this.tries = 0;
    if (count === 0) {
      // It has not taken what we knocked with: that comes again when the window opens.
      if (window === 0 && this.waiting.length > 0) this.rewind();
      return;
    }
    this.tries = 0;
    this.unacknowledged = ack;
    this.sentMost -= count;
    this.sent = Math.max(0, this.sent - count);
    // The FIN counts as one, behind all bytes.
    if (count > this.waiting.length) this.finAcknowledged = true;
    this.waiting = this.waiting.slice(count);
    if (this.isPaused && this.waiting.length < MOST_WAITING / 2) {
      this.isPaused = false;
      this.host?.resume();
    }
  }

  private take({ seq, body, flags }: Segment): void {
    if (!this.isEstablished) return;
    const skip = (this.receiveNext - seq) | 0;
    if (body.length === 0 && !(flags & FIN)) {
      // One with an old number asks whether anybody is there: keep-alive, or a knock at our closed window.
      if (skip > 0) this.sendAck();
      return;
    }
    // Not the next one, or more than the window that it was told: what fits is taken, the rest comes again.
    const room = this.guestEnded ? 0 : this.room();
    if (skip >= 0 && skip <= body.length && !this.guestEnded) {
      const fresh = body.subarray(skip, skip + room);
      if (fresh.length > 0) this.host?.write(fresh.slice());
      this.receiveNext = (this.receiveNext + fresh.length) | 0;
      if (flags & FIN && skip + fresh.length === body.length) {
        this.guestEnded = true;
        this.receiveNext = (this.receiveNext + 1) | 0;
        this.host?.end();
      }
    }
    this.sendAck();
  }

  private room(): number {
    return Math.max(0, WINDOW_BYTES - (this.host?.backlog() ?? 0));
  }

  private sendSyn(): void {
    if (this.isEstablished) return this.sendAck();
    this.sent = 1;
    this.sentMost = 1;
    this.send(answer(this.first, this.unacknowledged, this.receiveNext, SYN | ACK, WINDOW_BYTES, NOTHING));
  }

  private sendAck(): void {
    this.send(answer(this.first, this.sendNext, this.receiveNext, ACK, this.room(), NOTHING));
  }

  /** As much as the guest's window takes, at least `least` bytes. */
  private sendMore(least = 0): void {
    if (!this.isEstablished || this.isGone || this.finSent || this.finAcknowledged) return;
    const most = Math.max(least, this.window);
    while (this.sent < this.waiting.length && this.sent < most) {
      const end = Math.min(this.waiting.length, this.sent + SEGMENT_BYTES, most);
      const body = this.waiting.subarray(this.sent, end);
      this.send(answer(this.first, this.sendNext, this.receiveNext, ACK | PSH, this.room(), body));
      this.sent = end;
      this.sentMost = Math.max(this.sentMost, end);
    }
    if (!this.hostEnded || this.sent < this.waiting.length) return;
    this.send(answer(this.first, this.sendNext, this.receiveNext, FIN | ACK, this.room(), NOTHING));
    this.sent++;
    this.sentMost = Math.max(this.sentMost, this.sent);
    this.finSent = true;
  }
}
