/**
 * RCPPS, RCPSS, RSQRTPS and RSQRTSS: 1/x and 1/sqrt(x) to 12 bits, from tables. They know neither MXCSR nor flags; a denormal is a
 * zero, as an operand and as a result.
 *
 * The manuals bound the error only, and processors differ within it. These are the values of AMD's (read off one by its
 * results; `cpu-check` compares), found as there in two small tables instead of a large one:
 *
 *     x = 1.aaaabbbbccccddd...      the result's bits behind the point = base[aaaa][bbbb] + more[aaaa][cccc]
 *
 * `more` is the slope, which hardly depends on bbbb; d counts for nothing. (Schulte, Stine, "Approximating elementary functions with
 * symmetric bipartite tables", 1999.)
 */
import type { HelperFunction } from '../system/outcome.ts';
import { FAULT, NEXT } from '../system/outcome.ts';
import { firstBytes, readOperands, result, resultBytes, second, writeResult } from './operands.ts';

/** A row for each aaaa: sixteen bases of three hexadecimal digits, then sixteen digits to add, in base 36. */
// biome-ignore format: a table
const RECIPROCAL = [
  'fe2fc2fa3f83f65f46f27f09eebecdeafe92e75e58e3be1e sqpnljhfdba86420',
  'e03de7dcbdb0d94d79d5ed43d28d0dcf3cd9cbfca5c8bc72 pomkjhfeca975420',
  'c5ac41c28c0fbf7bdebc6baeb96b7eb67b4fb38b21b0aaf3 mljihfecb9865320',
  'addac7ab0a9aa84a6ea58a42a2da17a029ed9d89c39ae99a kjigfecba8764320',
  '98697295e94a93692290e8fb8e78d48c08ad89a887874862 ihgfecba97654310',
  '85083e82b8198077f57e37d17bf7ae79c78b779768757746 hgfdcba987653210',
  '7367257157046f36e36d36c26b26a2692682672663653643 fedcba9876543210',
  '6346256156065f75e85d95ca5bb5ac59e58f581572564555 edcba99876543210',
  '54853a52b51d5105024f44e64d94cb4bd4b04a349548847b dcbba98765543210',
  '46e46145444743b42e4214144083fb3ef3e23d63ca3bd3b1 cbba987765433210',
  '3a639a38e38237636a35e35334733b33032431930d3022f7 ba99877654432110',
  '2ec2e12d62cb2c02b52aa29f29428927e27426925f254249 a998776554332110',
  '23f23522b22021620c2021f81ed1e31d91cf1c61bc1b21a8 9987766544322110',
  '19e19518b18117816e16515b15214813f13612d12311a111 9987766544332110',
  '1080ff0f60ed0e40db0d30ca0c10b80af0a709e09508d084 8877665543322110',
  '07c07306b06205a052049041039031028020018010008000 8877665443322110',
];
const ROOT_OF_1_TO_2 = [
  'ff1fe1fd1fc2fb2fa2f93f84f74f65f56f47f38f29f1af0c edcba98776543210',
  'efeeefee1ed2ec4eb6ea8e9ae8ce7ee70e62e54e47e39e2c dcbaa98765433210',
  'e1fe12e04df7deaddddd0dc3db6da9d9dd90d83d77d6ad5e cbaa987665432110',
  'd52d46d39d2dd21d15d09cfdcf1ce5cdaccecc2cb7cabca0 ba99877654432110',
  'c94c89c7ec72c67c5cc51c46c3bc30c25c1ac0fc04bfabef aa98876554332110',
  'be4bdabcfbc5bbabb0ba5b9bb91b87b7cb72b68b5eb54b4a a998776554432210',
  'b41b37b2db23b19b10b06afcaf3ae9ae0ad6acdac3abaab1 9987766554332110',
  'aa8a9fa96a8ca83a7aa71a68a5fa56a4da44a3ba33a2aa21 8877665443322100',
  'a19a10a079ff9f69ee9e59dd9d49cc9c39bb9b39aa9a299a 8776655443322110',
  '99298a98297a97296a96295a95294a94293a93292b92391b 7766554433221100',
  '91390b9048fc8f48ed8e58de8d68cf8c78c08b88b18aa8a2 7766554443322110',
  '89b89488d88687e87787086986285b85484d84683f838831 7665554433221110',
  '82a82381c81680f8088017fa7f47ed7e67e07d97d27cc7c5 6655544333221100',
  '7bf7b87b27ab7a579e79879178b78577e77877276b76575f 6655444332221110',
  '75875274c74674073a73472d72772171b71570f7097036fd 6655544333221110',
  '6f86f26ec6e66e06db6d56cf6c96c36be6b86b26ac6a76a1 5554443322211100',
];
const ROOT_OF_2_TO_4 = [
  '69668b68067466965f65464963e63362961e6136095fe5f4 a998776554332110',
  '5ea5e05d65cb5c15b75ad5a359959058657c57256955f556 9987766544322100',
  '54d54353a53152751e51550c5034fa4f14e84df4d64cd4c4 8876655443221100',
  '4bb4b34aa4a149949048847f47746f46645e45644d44543d 8876655443322110',
  '43642e42641e41640e4063fe3f63ee3e73df3d73d03c83c1 7766554433221100',
  '3b93b23aa3a339b39438d38537e37737036836135a35334c 7666554433221110',
  '34633f33833132a32331c31530f3083012fa2f42ed2e62e0 6655444332211100',
  '2d92d32cc2c62bf2b92b22ac2a629f29929328c28628027a 6655444332221100',
  '27426e26826225c25625024a24423e23823222c22622021b 5554433322211000',
  '21520f2092041fe1f81f21ed1e71e21dc1d61d11cb1c61c0 5544433322211100',
  '1bb1b61b01ab1a51a019b19519018b18518017b17617116b 5544433322211100',
  '16616115c15715214d14814313e13913412f12a12512011b 5444333222111100',
  '11611210d1081030fe0f90f50f00eb0e60e20dd0d80d40cf 4443332222111000',
  '0ca0c60c10bd0b80b30af0aa0a60a109d09809408f08b087 4443332222111000',
  '08207e07907507106c06806405f05b05705304e04a046042 4433332222111100',
  '03d03903503102d02902502001c01801401000c008004000 4433332222111100',
];

/** All 4096 results by the first twelve bits behind the operand's point. */
function expand(rows: readonly string[]): Uint16Array {
  return Uint16Array.from({ length: 4096 }, (_, i) => {
    const row = rows[i >> 8];
    const at = ((i >> 4) & 15) * 3;
    return Number.parseInt(row.slice(at, at + 3), 16) + Number.parseInt(row[49 + (i & 15)], 36);
  });
}

const reciprocals = expand(RECIPROCAL);
/** Of numbers whose exponent is even, and odd. */
const roots = [expand(ROOT_OF_1_TO_2), expand(ROOT_OF_2_TO_4)];

const SIGN = 0x80000000 | 0;
const INFINITE = 0x7f800000;
const QUIET = 0x400000;
/** What an operation without a result gives. */
const DEFAULT_NAN = 0xffc00000 | 0;

const indexOf = (bits: number): number => (bits >> 11) & 0xfff;
/** A positive number between 1/2 and 1, times a power of two. */
const assemble = (exponent: number, fraction: number): number => (exponent << 23) | (fraction << 11);

/** 1/x of a single, bits to bits. */
export function reciprocal(bits: number): number {
  const sign = bits & SIGN;
  const exponent = (bits >> 23) & 0xff;
  if (exponent === 0xff) return bits & 0x7fffff ? bits | QUIET : sign;
  if (exponent === 0) return sign | INFINITE;
  return exponent >= 253 ? sign : sign | assemble(253 - exponent, reciprocals[indexOf(bits)]);
}

/** 1/sqrt(x) of a single, bits to bits. */
export function reciprocalRoot(bits: number): number {
  const exponent = (bits >> 23) & 0xff;
  if (exponent === 0xff && bits & 0x7fffff) return bits | QUIET;
  if (exponent === 0) return (bits & SIGN) | INFINITE;
  if (bits < 0) return DEFAULT_NAN;
  if (exponent === 0xff) return 0;
  const power = exponent - 127;
  return assemble(126 - (power >> 1), roots[power & 1][indexOf(bits)]);
}

const lanes = (count: 1 | 4, f: (bits: number) => number): HelperFunction => {
  return (cpu, record) => {
    if (!readOperands(cpu, record, count * 4)) return FAULT;
    resultBytes.set(firstBytes);
    for (let at = 0; at < count * 4; at += 4) result.setInt32(at, f(second.getInt32(at, true)), true);
    writeResult(cpu, record);
    return NEXT;
  };
};

export const VECTOR_ESTIMATES: Record<string, HelperFunction> = {
  rcpss: lanes(1, reciprocal),
  rcpps: lanes(4, reciprocal),
  rsqrtss: lanes(1, reciprocalRoot),
  rsqrtps: lanes(4, reciprocalRoot),
};
