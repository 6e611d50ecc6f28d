// The vocabulary of a training: learned from the captions of its data.
import { below, counterHash } from "../data/counter-hash.js";
import type { ImageDataset } from "../data/dataset.js";
import { DiffusionError } from "../errors.js";
import { TextTokenizer } from "../text/tokenizer.js";
import { trainBpeVocabulary, trainWordVocabulary } from "../text/vocabulary.js";
import type { RecipeVocabulary } from "../trainers/vq-diffusion-recipe.js";

const captionDraws = 12;

/** Every caption of a set, and some as training draws them, which may be composed of more words. */
function captionsOf(set: ImageDataset): string[] {
  return Array.from({ length: set.length }, (_, i) => {
    const drawn = Array.from({ length: captionDraws }, (_unused, k) => {
      let place = 0;
      return set.caption(i, (n) => below(n, counterHash(k, i, place++)));
    });
    return [...set.captions(i), ...drawn].filter((caption) => caption !== "");
  }).flat();
}

const rarest = 2;

/** Learns the vocabulary of a set; default words that occur at least twice. Throws "data" without captions. */
export function captionVocabulary(
  set: ImageDataset,
  vocabulary: RecipeVocabulary = { kind: "words" },
): TextTokenizer {
  const captions = captionsOf(set);
  if (captions.length === 0)
    throw new DiffusionError(
      "data",
      `${set.name}: expected captions, got none; add .txt files or captions.json, or set "condition": { "kind": "class" } or "none" in the recipe`,
    );
  return new TextTokenizer(
    vocabulary.kind === "words"
      ? trainWordVocabulary(captions, { minCount: vocabulary.minimumCount ?? rarest })
      : trainBpeVocabulary(captions, { vocabularySize: vocabulary.size }),
  );
}
