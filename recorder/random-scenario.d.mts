/** The text of the random scenario of a seed. Another number of ops gives the same machine and the same first ops. */
export function scenario(seed: number, ops?: number): string;
