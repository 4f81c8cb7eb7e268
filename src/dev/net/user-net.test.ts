import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualClock } from '../clock.ts';
import type { ConnectionEvents, NetworkPort } from './network-port.ts';
import {
  ETHER_BYTES,
  IP_ICMP,
  IP_TCP,
  checksum,
  ethernet,
  ipPacket,
  parseIp,
  pseudoSum,
  udpPacket,
  viewOf,
} from './packet.ts';
import { ACK, RST, type Segment, parseTcp } from './tcp-connection.ts';
import { GATEWAY_ADDRESS, GUEST_ADDRESS, GUEST_MAC, UserNet } from './user-net.ts';

const SYN = 2;
const FIN = 1;
const GATEWAY_MAC = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

/** A host that takes notes. */
class FakeHost implements NetworkPort {
  onActivity = (): void => {};
  close = (): void => {};
  readonly asked: string[] = [];
  events!: ConnectionEvents;
  written = '';
  backlogBytes = 0;
  state = '';

  connect(address: string, port: number, events: ConnectionEvents): ReturnType<NetworkPort['connect']> {
    this.asked.push(`${address}:${port}`);
    if (port !== 80) return null;
    this.events = events;
    return {
      write: (bytes) => void (this.written += Buffer.from(bytes).toString()),
      backlog: () => this.backlogBytes,
      end: () => void (this.state += 'end '),
      destroy: () => void (this.state += 'destroy '),
      pause: () => void (this.state += 'pause '),
      resume: () => void (this.state += 'resume '),
    };
  }
}

let clock: VirtualClock;
let host: FakeHost;
let net: UserNet;
let frames: Uint8Array[];
beforeEach(() => {
  clock = new VirtualClock();
  host = new FakeHost();
  net = new UserNet(host, clock);
  frames = [];
  net.deliver = (frame) => void frames.push(frame);
});

const ipOf = (frame: Uint8Array): NonNullable<ReturnType<typeof parseIp>> => parseIp(frame.subarray(ETHER_BYTES))!;
const sendIp = (protocol: number, body: Uint8Array, to = GATEWAY_ADDRESS): void =>
  net.receive(ethernet(GATEWAY_MAC, GUEST_MAC, 0x0800, ipPacket(GUEST_ADDRESS, to, protocol, body)));

/** What the guest's TCP sends. */
function sendTcp(
  seq: number,
  ack: number,
  flags: number,
  body = '',
  options: { window?: number; port?: number; to?: number } = {},
): void {
  const { window = 65535, port = 80, to = GATEWAY_ADDRESS } = options;
  const bytes = new Uint8Array(20 + body.length);
  const view = viewOf(bytes);
  view.setUint16(0, 40000);
  view.setUint16(2, port);
  view.setInt32(4, seq);
  view.setInt32(8, ack);
  view.setUint8(12, 0x50);
  view.setUint8(13, flags);
  view.setUint16(14, window);
  bytes.set(Buffer.from(body), 20);
  view.setUint16(16, checksum(bytes, pseudoSum(GUEST_ADDRESS, to, IP_TCP, bytes.length)));
  sendIp(IP_TCP, bytes, to);
}

function takeTcp(): Segment[] {
  const taken = frames.map((frame) => {
    const { source, destination, payload } = ipOf(frame);
    return parseTcp(source, destination, payload)!;
  });
  frames = [];
  return taken;
}

/** The handshake; the host's first number. */
function open(): number {
  sendTcp(1000, 0, SYN);
  expect(frames).toEqual([]);
  host.events.connected();
  const [synAck] = takeTcp();
  expect(synAck).toMatchObject({ flags: SYN | ACK, ack: 1001, sourcePort: 80, port: 40000 });
  sendTcp(1001, synAck.seq + 1, ACK);
  return synAck.seq + 1;
}

describe('the gateway', () => {
  it('gives the guest its address', () => {
    const discover = new Uint8Array(300);
    discover.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    discover.set(GUEST_MAC, 28);
    viewOf(discover).setUint32(236, 0x63825363);
    discover.set([53, 1, 1, 255], 240);
    for (const [type, answer] of [
      [1, 2],
      [3, 5],
    ]) {
      discover[242] = type;
      net.receive(
        ethernet([255, 255, 255, 255, 255, 255], GUEST_MAC, 0x0800, udpPacket(0, 68, 0xffffffff, 67, discover)),
      );
      const reply = ipOf(frames.pop()!).payload.subarray(8);
      expect([reply[0], viewOf(reply).getUint32(4), viewOf(reply).getUint32(16)]).toEqual([
        2,
        0xdeadbeef,
        GUEST_ADDRESS,
      ]);
      expect([...reply.subarray(240, 243)]).toEqual([53, 1, answer]);
      expect([...reply.subarray(28, 34)]).toEqual(GUEST_MAC);
    }
  });

  it('answers ARP for all but the guest itself', () => {
    const ask = (target: number): Uint8Array | undefined => {
      const question = new Uint8Array(28);
      const view = viewOf(question);
      view.setUint32(0, 0x00010800);
      view.setUint32(4, 0x06040001);
      question.set(GUEST_MAC, 8);
      view.setUint32(14, GUEST_ADDRESS);
      view.setUint32(24, target);
      net.receive(ethernet([255, 255, 255, 255, 255, 255], GUEST_MAC, 0x0806, question));
      return frames.pop();
    };
    const reply = ask(GATEWAY_ADDRESS)!;
    expect([...reply.subarray(0, 6)]).toEqual(GUEST_MAC);
    expect([...reply.subarray(22, 28)]).toEqual(GATEWAY_MAC);
    expect(viewOf(reply).getUint32(28)).toBe(GATEWAY_ADDRESS);
    expect(ask(GUEST_ADDRESS)).toBeUndefined();
    expect(ask(0x08080808)).toBeUndefined();
  });

  it('answers a ping, and says that other UDP goes nowhere', () => {
    const ping = Uint8Array.of(8, 0, 0, 0, 1, 2, 3, 4, 5);
    viewOf(ping).setUint16(2, checksum(ping));
    sendIp(IP_ICMP, ping);
    expect([...ipOf(frames[0]).payload.subarray(4, 9)]).toEqual([1, 2, 3, 4, 5]);
    expect(checksum(ipOf(frames[0]).payload)).toBe(0);
    net.receive(
      ethernet(GATEWAY_MAC, GUEST_MAC, 0x0800, udpPacket(GUEST_ADDRESS, 5, 0x08080808, 53, new Uint8Array(4))),
    );
    expect([...ipOf(frames[1]).payload.subarray(0, 2)]).toEqual([3, 3]);
  });

  it('drops what is malformed', () => {
    for (let length = 0; length < 80; length++) net.receive(new Uint8Array(length).fill(0x45));
    const good = ethernet(
      GATEWAY_MAC,
      GUEST_MAC,
      0x0800,
      ipPacket(GUEST_ADDRESS, GATEWAY_ADDRESS, IP_TCP, new Uint8Array(5)),
    );
    net.receive(good);
    good[16] = 0xff; // longer than the frame
    net.receive(good);
    expect(frames).toEqual([]);
  });
});

describe('a TCP connection of the guest', () => {
  it('is refused where the owner has not allowed it', () => {
    sendTcp(7, 0, SYN, '', { port: 22 });
    sendTcp(7, 0, SYN, '', { to: 0x01020304, port: 443 });
    expect(host.asked).toEqual(['127.0.0.1:22', '1.2.3.4:443']);
    for (const segment of takeTcp()) expect(segment).toMatchObject({ flags: RST | ACK, ack: 8 });
    expect(net.connectionCount).toBe(0);
  });

  it('is reset if the host can not connect', () => {
    sendTcp(7, 0, SYN);
    host.events.failed();
    expect(takeTcp()).toMatchObject([{ flags: RST | ACK, ack: 8 }]);
    clock.advanceTo(2e9);
    expect(net.connectionCount).toBe(0);
    expect(clock.nextDeadline).toBe(Infinity);
  });

  it('carries bytes both ways, and ends both ways', () => {
    const seq = open();
    sendTcp(1001, seq, ACK, 'GET / HTTP/1.0\r\n\r\n');
    expect(host.written).toBe('GET / HTTP/1.0\r\n\r\n');
    expect(takeTcp().at(-1)).toMatchObject({ flags: ACK, ack: 1019 });
    host.events.data(Buffer.from('hello '));
    host.events.data(Buffer.from('guest'));
    host.events.ended();
    const segments = takeTcp();
    expect(segments.map(({ body }) => Buffer.from(body).toString()).join('')).toBe('hello guest');
    expect(segments.at(-1)!.flags & FIN).toBe(FIN);
    sendTcp(1019, seq + 12, ACK | FIN);
    expect(takeTcp().at(-1)).toMatchObject({ ack: 1020 });
    expect(host.state).toBe('end destroy ');
    expect(net.connectionCount).toBe(0);
  });

  it('keeps to the window of the guest, and knocks when it is closed', () => {
    const seq = open();
    sendTcp(1001, seq, ACK, '', { window: 2000 });
    host.events.data(Buffer.alloc(5000, 'x'));
    expect(takeTcp().reduce((sum, { body }) => sum + body.length, 0)).toBe(2000);
    sendTcp(1001, seq + 2000, ACK, '', { window: 0 });
    expect(takeTcp()).toEqual([]);
    clock.advanceTo(clock.now + 6e8);
    expect(takeTcp().map(({ body, seq: at }) => [body.length, at])).toEqual([[1, seq + 2000]]);
    sendTcp(1001, seq + 2001, ACK, '', { window: 60000 });
    expect(takeTcp().reduce((sum, { body }) => sum + body.length, 0)).toBe(2999);
  });

  it('repeats what is not acknowledged, and in the end gives up', () => {
    const seq = open();
    host.events.data(Buffer.from('abc'));
    host.events.ended();
    takeTcp();
    clock.advanceTo(clock.now + 6e8);
    expect(takeTcp().map((segment) => [segment.seq, segment.body.length, segment.flags & FIN])).toEqual([
      [seq, 3, 0],
      [seq + 3, 0, FIN],
    ]);
    clock.advanceTo(clock.now + 20e9);
    expect(takeTcp().at(-1)!.flags & RST).toBe(RST);
    expect(net.connectionCount).toBe(0);
  });

  it('outlives a guest that reads nothing for a long time, as long as it answers', () => {
    const seq = open();
    sendTcp(1001, seq, ACK, '', { window: 0 });
    host.events.data(Buffer.from('abc'));
    for (let i = 0; i < 100; i++) {
      clock.advanceTo(clock.now + 5e8);
      expect(takeTcp().map(({ flags, body }) => [flags & RST, body.length])).toEqual([[0, 1]]);
      sendTcp(1001, seq, ACK, '', { window: 0 });
    }
    sendTcp(1001, seq, ACK, '', { window: 1000 });
    expect(Buffer.from(takeTcp().at(-1)!.body).toString()).toBe('abc');
  });

  it('answers a guest that asks whether anybody is there', () => {
    const seq = open();
    // Keep-alive, and what knocks at a closed window: the byte before the next one, without a body.
    sendTcp(1000, seq, ACK);
    expect(takeTcp()).toMatchObject([{ flags: ACK, seq, ack: 1001 }]);
    sendTcp(1001, seq, ACK);
    expect(takeTcp()).toEqual([]);
  });

  it('takes each byte once, in order, and no more than there is room for', () => {
    const seq = open();
    sendTcp(1001, seq, ACK, 'abc');
    sendTcp(1001, seq, ACK, 'abcdef');
    sendTcp(1010, seq, ACK, 'later');
    expect(host.written).toBe('abcdef');
    expect(takeTcp().at(-1)).toMatchObject({ ack: 1007 });
    host.backlogBytes = 65533;
    sendTcp(1007, seq, ACK, 'ghi');
    expect(host.written).toBe('abcdefgh');
    expect(takeTcp().at(-1)).toMatchObject({ ack: 1009, window: 2 });
    host.backlogBytes = 0;
    host.events.drained();
    expect(takeTcp().at(-1)).toMatchObject({ ack: 1009, window: 65535 });
  });

  it('asks the host to wait when the guest is slow', () => {
    const seq = open();
    sendTcp(1001, seq, ACK, '', { window: 1000 });
    host.events.data(Buffer.alloc(300_000));
    expect(host.state).toBe('pause ');
    for (let at = 1000; at <= 200_000; at += 1000) sendTcp(1001, seq + at, ACK, '', { window: 1000 });
    expect(host.state).toBe('pause resume ');
  });

  it('ends at once when the guest resets it, or its card', () => {
    const seq = open();
    sendTcp(1001, seq, RST);
    expect([host.state, net.connectionCount]).toEqual(['destroy ', 0]);
    open();
    net.closeAll();
    expect([host.state, net.connectionCount]).toEqual(['destroy destroy ', 0]);
    host.events.data(Buffer.from('late'));
    host.events.failed();
    expect(takeTcp()).toEqual([]);
  });

  it('is one of a limited number', () => {
    for (let port = 0; port < 300; port++) {
      const to = 0x0b000000 + port;
      sendTcp(1, 0, SYN, '', { to });
    }
    expect(net.connectionCount).toBe(256);
    expect(takeTcp()).toHaveLength(300 - 256);
  });
});
