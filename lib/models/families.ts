// The registry of checkpoint families: `smalti inspect` and `smalti convert` know what is listed here. A new family is
// one entry in a file x.family.ts beside its model (see family.ts, vqgan.family.ts), spread into this list.
import { admFamilies } from "./adm.family.js";
import { ddpmFamilies } from "./ddpm-unet.family.js";
import { clipTextEncoderFamilies } from "./clip-text-encoder.family.js";
import { diffuseVaeFamilies } from "./diffusevae.family.js";
import { divaeFamilies } from "./divae.family.js";
import { ditFamilies } from "./dit.family.js";
import type { Family } from "./family.js";
import { ShapeView } from "./family.js";
import { vqTransformerFamilies } from "./vq-transformer.family.js";
import { latentDiffusionFamilies } from "./latent-diffusion.family.js";
import { lpipsFamilies } from "./lpips.family.js";
import { patchDiscriminatorFamilies } from "./patch-discriminator.family.js";
import { vqganFamilies } from "./vqgan.family.js";

export const families: readonly Family[] = [
  ...vqganFamilies,
  ...latentDiffusionFamilies,
  ...lpipsFamilies,
  ...patchDiscriminatorFamilies,
  ...vqTransformerFamilies,
  ...admFamilies,
  ...ddpmFamilies,
  ...diffuseVaeFamilies,
  ...divaeFamilies,
  ...ditFamilies,
  ...clipTextEncoderFamilies,
];

/** A model found in a checkpoint. */
export interface Recognised {
  family: Family;
  /** Matches the cut-off start of its names; undefined when it is the whole checkpoint. */
  place: RegExp | undefined;
  /** Names as the family knows them, and their shapes. */
  shapes: ShapeView;
  /** The checkpoint's name of each of those. */
  origins: ReadonlyMap<string, string>;
}

type Shapes = ReadonlyMap<string, readonly number[]>;

/** The tensors of one place, by the rest of their names; the first of equal names counts. */
function partOf(
  shapes: Shapes,
  place: RegExp | undefined,
): Map<string, [string, readonly number[]]> {
  const part = new Map<string, [string, readonly number[]]>();
  for (const [name, shape] of shapes) {
    const start = place ? place.exec(name)?.[0] : "";
    if (start === undefined || !name.startsWith(start)) continue;
    const rest = name.slice(start.length);
    if (!part.has(rest)) part.set(rest, [name, shape]);
  }
  return part;
}

const isFamily = ({ marks, absent = [] }: Family, names: readonly string[]): boolean =>
  marks.every((mark) => names.some((name) => mark.test(name))) &&
  !absent.some((pattern) => names.some((name) => pattern.test(name)));

/** Whether a family's names may begin at once; when it is the only one asked for there is no other to mistake it for. */
const mayBeWhole = ({ whole = true }: Family, shapes: Shapes, isAsked: boolean): boolean =>
  isAsked || whole === true || (whole && [...shapes.keys()].some((name) => whole.test(name)));

/** Every model in a checkpoint, by names alone. One family is found at most once, at its first place. */
export function recognise(
  where: string,
  shapes: Shapes,
  among: readonly Family[] = families,
): Recognised[] {
  return among.flatMap((family) => {
    for (const place of [
      ...(mayBeWhole(family, shapes, among.length === 1) ? [undefined] : []),
      ...(family.places ?? []),
    ]) {
      const part = partOf(shapes, place);
      if (!isFamily(family, [...part.keys()])) continue;
      const entries = [...part];
      return [
        {
          family,
          place,
          shapes: new ShapeView(where, new Map(entries.map(([name, [, shape]]) => [name, shape]))),
          origins: new Map(entries.map(([name, [origin]]) => [name, origin])),
        },
      ];
    }
    return [];
  });
}
