/* Hash chains: insert and look up. */
struct node { unsigned key, value; struct node *next; };
static struct node nodes[1 << 16];
static struct node *heads[1 << 14];
unsigned long bench(void) {
  unsigned long sum = 0;
  for (int round = 0; round < 4; round++) {
    for (unsigned i = 0; i < 1 << 14; i++) heads[i] = 0;
    for (unsigned i = 0; i < 1 << 16; i++) {
      unsigned key = i * 2654435761u;
      struct node *n = &nodes[i];
      n->key = key;
      n->value = i ^ round;
      n->next = heads[key >> 18];
      heads[key >> 18] = n;
    }
    for (unsigned i = 0; i < 1 << 18; i++) {
      unsigned key = (i * 5) * 2654435761u;
      for (struct node *n = heads[key >> 18]; n; n = n->next)
        if (n->key == key) {
          sum += n->value;
          break;
        }
    }
  }
  return sum;
}
