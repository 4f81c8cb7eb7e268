/**
 * A network for one guest that needs no rights of the host: it answers as a gateway would, and ends the guest's TCP connections here.
 *
 *     10.0.2.15  the guest, by DHCP          10.0.2.2  the gateway; to connect to it is to connect to the host's 127.0.0.1
 *
 * ARP for every address of the network but the guest's own; ICMP echo of the gateway; TCP to what the port allows, else RST; other UDP
 * is unreachable. No names, no IPv6, nothing from outside. All of it moves by the guest's frames and the machine's clock alone, so that a
 * run can be repeated; this room has no event loop.
 */
import type { TimerClient, VirtualClock } from '../clock.ts';
import { dhcpReply } from './dhcp.ts';
import type { NetworkPort } from './network-port.ts';
import {
  ETHER_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_IP,
  IP_ICMP,
  IP_TCP,
  IP_UDP,
  type IpHeader,
  type Mac,
  checksum,
  dotted,
  ethernet,
  ipPacket,
  parseIp,
  udpPacket,
  viewOf,
} from './packet.ts';
import { RST, type Segment, TcpConnection, isSyn, parseTcp, refusal } from './tcp-connection.ts';

export const GUEST_ADDRESS = 0x0a00020f;
export const GATEWAY_ADDRESS = 0x0a000202;
const NETWORK = 0x0a000200;
const MASK = 0xffffff00;
const LOOPBACK = '127.0.0.1';
export const GUEST_MAC: Mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const GATEWAY_MAC: Mac = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
const BROADCAST: Mac = [255, 255, 255, 255, 255, 255];
const MAX_CONNECTIONS = 256;
const TICK_NS = 5e8;

export class UserNet implements TimerClient {
  /** Frames for the guest. */
  deliver: (frame: Uint8Array) => void = () => {};
  private readonly port: NetworkPort;
  private readonly clock: VirtualClock;
  private readonly timer: number;
  private readonly connections = new Map<string, TcpConnection>();
  private isn = 1;

  constructor(port: NetworkPort, clock: VirtualClock) {
    this.port = port;
    this.clock = clock;
    this.timer = clock.addTimer(this);
  }

  get connectionCount(): number {
    return this.connections.size;
  }

  /** A frame of the guest's; what isn't sound is dropped. */
  receive(frame: Uint8Array): void {
    if (frame.length < ETHER_BYTES) return;
    const type = viewOf(frame).getUint16(12);
    const payload = frame.subarray(ETHER_BYTES);
    if (type === ETHERTYPE_ARP) this.arp(payload);
    if (type !== ETHERTYPE_IP) return;
    const ip = parseIp(payload);
    if (ip === null) return;
    if (ip.protocol === IP_UDP) this.udp(ip, payload);
    // Before it has an address, the guest can only ask for one.
    else if (ip.source !== GUEST_ADDRESS) return;
    else if (ip.protocol === IP_TCP) this.tcp(ip);
    else if (ip.protocol === IP_ICMP) this.icmp(ip);
  }

  onTimer(): void {
    for (const connection of this.connections.values()) connection.tick();
    this.sweep();
    if (this.connections.size > 0) this.clock.schedule(this.timer, this.clock.now + TICK_NS);
  }

  /** The guest's network card is reset. */
  closeAll(): void {
    for (const connection of this.connections.values()) connection.close();
    this.connections.clear();
    this.clock.cancel(this.timer);
  }

  private send(packet: Uint8Array, to: Mac = GUEST_MAC): void {
    this.deliver(ethernet(to, GATEWAY_MAC, ETHERTYPE_IP, packet));
  }

  private arp(payload: Uint8Array): void {
    const view = viewOf(payload);
    // Ethernet and IPv4, a question.
    if (payload.length < 28 || view.getUint32(0) !== 0x00010800 || view.getUint32(4) !== 0x06040001) return;
    const target = view.getUint32(24);
    if ((target & MASK) !== NETWORK || target === GUEST_ADDRESS || view.getUint32(14) === 0) return;
    const reply = payload.slice(0, 28);
    viewOf(reply).setUint16(6, 2);
    reply.set(payload.subarray(8, 18), 18);
    reply.set(GATEWAY_MAC, 8);
    viewOf(reply).setUint32(14, target);
    this.deliver(ethernet([...payload.subarray(8, 14)], GATEWAY_MAC, ETHERTYPE_ARP, reply));
  }

  private udp({ source, destination, payload }: IpHeader, packet: Uint8Array): void {
    if (payload.length < 8) return;
    const view = viewOf(payload);
    if (view.getUint16(2) === 67) {
      const reply = dhcpReply(payload.subarray(8), GUEST_ADDRESS, GATEWAY_ADDRESS, MASK >>> 0);
      if (reply !== null) this.send(udpPacket(GATEWAY_ADDRESS, 67, 0xffffffff, 68, reply), BROADCAST);
      return;
    }
    if (source !== GUEST_ADDRESS || destination >>> 28 >= 14 || destination === (NETWORK | 255)) return;
    // Destination unreachable, port; with the header and what follows.
    const message = new Uint8Array(8 + Math.min(packet.length, 28));
    message.set([3, 3]);
    message.set(packet.subarray(0, 28), 8);
    viewOf(message).setUint16(2, checksum(message));
    this.send(ipPacket(destination, source, IP_ICMP, message));
  }

  private icmp({ source, destination, payload }: IpHeader): void {
    if (destination !== GATEWAY_ADDRESS || payload.length < 8 || payload[0] !== 8) return;
    const reply = payload.slice();
    reply[0] = 0;
    reply.fill(0, 2, 4);
    viewOf(reply).setUint16(2, checksum(reply));
    this.send(ipPacket(destination, source, IP_ICMP, reply));
  }

  private tcp({ source, destination, payload }: IpHeader): void {
    const segment = parseTcp(source, destination, payload);
    if (segment === null) return;
    const key = `${segment.sourcePort} ${destination} ${segment.port}`;
    const connection = this.connections.get(key);
    if (connection !== undefined) {
      connection.receive(segment);
      if (connection.isGone) this.connections.delete(key);
    } else if (isSyn(segment)) this.open(key, segment);
    else if (!(segment.flags & RST)) this.send(refusal(segment));
  }

  private open(key: string, segment: Segment): void {
    this.sweep();
    if (this.connections.size === MAX_CONNECTIONS) return this.send(refusal(segment));
    this.isn = (this.isn + 64000) | 0;
    const connection = new TcpConnection(segment, this.isn, (packet) => this.send(packet));
    const { destination, port } = segment;
    const address = destination === GATEWAY_ADDRESS ? LOOPBACK : dotted(destination);
    const host = this.port.connect(address, port, connection);
    if (host === null) return this.send(refusal(segment));
    connection.attach(host);
    this.connections.set(key, connection);
    if (this.connections.size === 1) this.clock.schedule(this.timer, this.clock.now + TICK_NS);
  }

  private sweep(): void {
    for (const [key, connection] of this.connections) if (connection.isGone) this.connections.delete(key);
  }
}
