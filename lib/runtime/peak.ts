// The machine's measured peak of multiply-adds, against which shares of peak are stated.
import { chosenIsa } from "./device.js";
import { native, nativeCall } from "./native.js";

/** GFLOP/s of one thread with the instruction set in use, from a loop of multiply-adds in registers. */
export const measurePeak = (milliseconds = 200): Promise<number> =>
  nativeCall(() => native().measurePeak(chosenIsa(), milliseconds));
