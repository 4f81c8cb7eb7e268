/**
 * A folder of the host's for a guest. A node is a number that the host gives for a file, folder or link; answers below 0 are errors, -errno.
 *
 * INVARIANT inside: no name or link leads to anything that isn't below the root. Names are single components, never `.` or `..`.
 */
export interface FolderPort {
  readonly isReadonly: boolean;
  /** A new node for the folder itself. */
  root(): number;
  /** A new node for what has this name in a folder; a link is not followed. */
  walk(node: number, name: string): number;
  /** Another node for the same. */
  copy(node: number): number;
  release(node: number): void;
  stat(node: number): FileInfo | number;
  /** Before reading or writing; only files and folders can be opened. */
  open(node: number, write: boolean, truncate: boolean): number;
  read(node: number, at: number, into: Uint8Array): number;
  write(node: number, at: number, from: Uint8Array): number;
  list(node: number): readonly FolderEntry[] | number;
  readlink(node: number): string | number;
  /** Makes a file, or takes the one that is there if it needn't be new; the node of the opened file. */
  create(node: number, name: string, mode: number, isNew: boolean): number;
  mkdir(node: number, name: string, mode: number): number;
  unlink(node: number, name: string, isFolder: boolean): number;
  rename(node: number, name: string, toNode: number, toName: string): number;
  truncate(node: number, bytes: number): number;
  sync(node: number): number;
}

export interface FileInfo {
  /** With the type's bits, as Linux has them. */
  readonly mode: number;
  readonly inode: number;
  readonly uid: number;
  readonly gid: number;
  readonly links: number;
  readonly bytes: number;
  readonly blocks: number;
  readonly accessedMs: number;
  readonly modifiedMs: number;
  readonly changedMs: number;
}

export interface FolderEntry {
  readonly name: string;
  readonly mode: number;
  readonly inode: number;
}
