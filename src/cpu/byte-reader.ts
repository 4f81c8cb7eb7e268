/** Little-endian reading of an instruction's bytes. Beyond the end there are zeros; `at` shows that it was passed. */
export class ByteReader {
  #bytes: Uint8Array = new Uint8Array(0);
  #end = 0;
  at = 0;

  start(bytes: Uint8Array, at: number, end: number): void {
    this.#bytes = bytes;
    this.at = at;
    this.#end = end;
  }

  get passed(): boolean {
    return this.at > this.#end;
  }

  byte(): number {
    const at = this.at++;
    return at < this.#end ? this.#bytes[at] : 0;
  }

  /** The next byte, still to be read. */
  peek(): number {
    return this.at < this.#end ? this.#bytes[this.at] : 0;
  }

  signedByte(): number {
    return (this.byte() << 24) >> 24;
  }

  word(): number {
    const low = this.byte();
    return low | (this.byte() << 8);
  }

  signedWord(): number {
    return (this.word() << 16) >> 16;
  }

  int(): number {
    const low = this.word();
    return low | (this.word() << 16);
  }
}
