/* CRC-32 by table over 64 KiB. */
static unsigned table[256];
static unsigned char data[65536];
unsigned long bench(void) {
  for (unsigned i = 0; i < 256; i++) {
    unsigned c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  for (unsigned i = 0; i < sizeof data; i++) data[i] = i * 7 + (i >> 8);
  unsigned crc = ~0u;
  for (int round = 0; round < 100; round++)
    for (unsigned i = 0; i < sizeof data; i++) crc = table[(crc ^ data[i]) & 255] ^ (crc >> 8);
  return ~crc;
}
