/**
 * Contents of host frames, as hardware and host software see them. Little-endian; `offset` is in bytes within the
 * frame, naturally aligned for the access; values are int32 (bytes: 0..255).
 */
export interface PhysMemory {
  read32(pfn: number, offset: number): number;
  write32(pfn: number, offset: number, value: number): void;
  read8(pfn: number, offset: number): number;
  write8(pfn: number, offset: number, value: number): void;
}
