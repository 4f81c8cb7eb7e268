import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytesOf, fromHex, MAX_PACKET, PacketLink, toHex } from './packets.ts';
import { checksum } from './testing/session.ts';

function link() {
  const heard: string[] = [];
  let sent = '';
  const one = new PacketLink({
    packet: (text) => heard.push(text),
    interrupt: () => heard.push('interrupt'),
    send: (bytes) => (sent += Buffer.from(bytes).toString('latin1')),
  });
  const receive = (text: string) => one.receive(Buffer.from(text, 'latin1'));
  return { one, heard, receive, sent: () => sent };
}

describe('packets', () => {
  it('are taken when their sum is right, and asked for again when not', () => {
    const { heard, receive, sent } = link();
    receive(`$m0,4#${checksum('m0,4')}$m0,5#00$g#zz`);
    expect(heard).toEqual(['m0,4']);
    expect(sent()).toBe('+--');
  });

  it('come in any pieces, with anything between them, and an interrupt outside of them', () => {
    const { one, heard, receive } = link();
    one.acknowledges = false;
    for (const byte of `+noise$?#3f\x03$g#67`) receive(byte);
    expect(heard).toEqual(['?', 'interrupt', 'g']);
  });

  it('begin again where another begins', () => {
    const { heard, receive } = link();
    receive('$m0,$?#3f');
    expect(heard).toEqual(['?']);
  });

  it('that are longer than was agreed are refused', () => {
    const { heard, receive, sent } = link();
    const text = 'x'.repeat(MAX_PACKET + 1);
    receive(`$${text}#${checksum(text)}$?#3f`);
    expect(heard).toEqual(['?']);
    expect(sent()).toBe('-+');
  });

  it('are sent again when they did not arrive', () => {
    const { one, receive, sent } = link();
    one.send('OK');
    receive('-');
    expect(sent()).toBe('$OK#9a$OK#9a');
    receive('-'.repeat(1000));
    expect(sent()).toBe('$OK#9a$OK#9a$OK#9a');
  });

  it('bring any bytes there and back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const there = link();
        const text = String.fromCharCode(...bytes);
        there.one.send(text);
        const back = link();
        back.receive(there.sent());
        expect(back.heard.map(bytesOf)).toEqual([bytes]);
        expect(fromHex(toHex(bytes))).toEqual(bytes);
      }),
    );
  });

  it('survive any noise', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const { one, heard, receive } = link();
        one.receive(bytes);
        receive('#00$?#3f');
        expect(heard.at(-1)).toBe('?');
      }),
    );
  });
});
