/* A state machine over bytes: counts words, numbers and lines. */
static unsigned char text[1 << 16];
unsigned long bench(void) {
  unsigned x = 7;
  for (unsigned i = 0; i < sizeof text; i++) {
    x = x * 1103515245u + 12345u;
    text[i] = "abc 12\n.de 3f45x"[x >> 28];
  }
  unsigned long words = 0, numbers = 0, lines = 0;
  for (int round = 0; round < 60; round++) {
    int state = 0;
    for (unsigned i = 0; i < sizeof text; i++) {
      unsigned char c = text[i];
      switch (state) {
      case 0:
        if (c >= 'a' && c <= 'z') state = 1, words++;
        else if (c >= '0' && c <= '9') state = 2, numbers++;
        else if (c == '\n') lines++;
        break;
      case 1:
        if (c == ' ' || c == '.') state = 0;
        else if (c == '\n') state = 0, lines++;
        break;
      case 2:
        if (c >= 'a' && c <= 'z') state = 1, words++;
        else if (c < '0' || c > '9') state = 0, lines += c == '\n';
        break;
      }
    }
  }
  return words * 1000003 + numbers * 1009 + lines;
}
