/** The replay of a recording, to be changed as the engine is for the checker: the changed copy must do the same. */
export { runScript } from '../../conform/run.ts';
