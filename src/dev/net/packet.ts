/** Ethernet, ARP, IPv4: as much as one guest behind one gateway needs. Addresses are numbers, big-endian in packets. */
export type Mac = readonly number[];

export const ETHER_BYTES = 14;
export const IP_BYTES = 20;
export const ETHERTYPE_IP = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const IP_ICMP = 1;
export const IP_TCP = 6;
export const IP_UDP = 17;

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** `a.b.c.d` of an address. */
export function dotted(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
}

/** The Internet's checksum of the bytes, begun with `sum`. */
export function checksum(bytes: Uint8Array, sum = 0): number {
  let total = sum;
  for (let i = 0; i < bytes.length; i++) total += i & 1 ? bytes[i] : bytes[i] << 8;
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 65536);
  return ~total & 0xffff;
}

/** What the pseudo header adds to the checksum of TCP or UDP. */
export function pseudoSum(source: number, destination: number, protocol: number, bytes: number): number {
  return (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff) + protocol + bytes;
}

export function ethernet(destination: Mac, source: Mac, type: number, payload: Uint8Array): Uint8Array {
  // Shorter frames don't exist.
  const frame = new Uint8Array(Math.max(ETHER_BYTES + payload.length, 60));
  frame.set(destination);
  frame.set(source, 6);
  viewOf(frame).setUint16(12, type);
  frame.set(payload, ETHER_BYTES);
  return frame;
}

export function ipPacket(source: number, destination: number, protocol: number, payload: Uint8Array): Uint8Array {
  const packet = new Uint8Array(IP_BYTES + payload.length);
  const view = viewOf(packet);
  view.setUint16(0, 0x4500);
  view.setUint16(2, packet.length);
  view.setUint16(6, 0x4000); // don't fragment
  view.setUint8(8, 64);
  view.setUint8(9, protocol);
  view.setUint32(12, source);
  view.setUint32(16, destination);
  view.setUint16(10, checksum(packet.subarray(0, IP_BYTES)));
  packet.set(payload, IP_BYTES);
  return packet;
}

export interface IpHeader {
  readonly protocol: number;
  readonly source: number;
  readonly destination: number;
  readonly payload: Uint8Array;
}

/** A whole, sound IPv4 packet, or null; fragments aren't taken. */
export function parseIp(packet: Uint8Array): IpHeader | null {
  if (packet.length < IP_BYTES || packet[0] >> 4 !== 4) return null;
  const view = viewOf(packet);
  const header = (packet[0] & 15) * 4;
  const total = view.getUint16(2);
  if (header < IP_BYTES || total < header || total > packet.length) return null;
  if (checksum(packet.subarray(0, header)) !== 0 || view.getUint16(6) & 0x3fff) return null;
  return {
    protocol: packet[9],
    source: view.getUint32(12),
    destination: view.getUint32(16),
    payload: packet.subarray(header, total),
  };
}

export function udpPacket(
  source: number,
  sourcePort: number,
  destination: number,
  port: number,
  body: Uint8Array,
): Uint8Array {
  const datagram = new Uint8Array(8 + body.length);
  const view = viewOf(datagram);
  view.setUint16(0, sourcePort);
  view.setUint16(2, port);
  view.setUint16(4, datagram.length);
  datagram.set(body, 8);
  const sum = checksum(datagram, pseudoSum(source, destination, IP_UDP, datagram.length));
  view.setUint16(6, sum === 0 ? 0xffff : sum);
  return ipPacket(source, destination, IP_UDP, datagram);
}
