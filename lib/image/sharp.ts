// sharp, loaded at the first picture: a program without pictures saves its 22 MB and a tenth of a second.
import { createRequire } from "node:module";
import type sharp from "sharp";

let loaded: typeof sharp | undefined;

export const loadSharp = (): typeof sharp =>
  (loaded ??= createRequire(import.meta.url)("sharp") as typeof sharp);
