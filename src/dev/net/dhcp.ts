/** A DHCP server with one address to give. */
import { viewOf } from './packet.ts';

const BOOTREQUEST = 1;
const BOOTREPLY = 2;
const COOKIE = 0x63825363;
const OPTIONS = 240;
const DISCOVER = 1;
const OFFER = 2;
const REQUEST = 3;
const ACK = 5;
const LEASE_S = 86400;

/** The answer to a message of a client, or null. */
export function dhcpReply(message: Uint8Array, address: number, server: number, mask: number): Uint8Array | null {
  if (message.length < OPTIONS || message[0] !== BOOTREQUEST) return null;
  const asked = viewOf(message);
  if (asked.getUint32(236) !== COOKIE) return null;
  const type = messageType(message);
  if (type !== DISCOVER && type !== REQUEST) return null;
  const reply = new Uint8Array(300);
  const view = viewOf(reply);
  reply.set(message.subarray(0, 8)); // types, hops, transaction
  reply[0] = BOOTREPLY;
  view.setUint16(10, asked.getUint16(10)); // flags
  view.setUint32(16, address);
  view.setUint32(20, server);
  reply.set(message.subarray(28, 44), 28); // the client's hardware address
  view.setUint32(236, COOKIE);
  const word = (value: number): number[] => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
  reply.set(
    [
      [53, 1, type === DISCOVER ? OFFER : ACK],
      [54, 4, ...word(server)],
      [51, 4, ...word(LEASE_S)],
      [1, 4, ...word(mask)],
      [3, 4, ...word(server)],
      [255],
    ].flat(),
    OPTIONS,
  );
  return reply;
}

function messageType(message: Uint8Array): number {
  for (let at = OPTIONS; at + 2 < message.length && message[at] !== 255; ) {
    if (message[at] === 0) at++;
    else if (message[at] === 53) return message[at + 2];
    else at += 2 + message[at + 1];
  }
  return 0;
}
