// A pipeline small enough for tests: random weights, 16 x 16 pictures, 4 x 4 tokens.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initialValues } from "../../lib/nn/init.js";
import { textToToken, type TextToTokenConfig } from "../../lib/models/text-to-token.js";
import { vqgan, type VqganConfig } from "../../lib/models/vqgan.js";
import { saveVqDiffusion } from "../../lib/pipelines/vq-diffusion-folder.js";
import type { VqDiffusionSettings } from "../../lib/pipelines/vq-diffusion-settings.js";
import { TextTokenizer } from "../../lib/text/tokenizer.js";
import { trainWordVocabulary } from "../../lib/text/vocabulary.js";

/** Convolutions of a codec, whatever stands between encoder and decoder. */
export const tinyConvolutions: Omit<VqganConfig, "quantizer"> = {
  resolution: 16,
  channels: 8,
  multipliers: [1, 1, 2],
  residualBlocks: 1,
  attentionResolutions: [4],
  groups: 4,
  latentChannels: 8,
};

export const tinyCodec: VqganConfig = {
  ...tinyConvolutions,
  quantizer: { codes: 20, width: 4, codebook: "ema" },
};

const styles = ["plain", "fancy"];

export const tinySettings: VqDiffusionSettings = {
  process: { timesteps: 12, preset: "released" },
  attributes: { style: styles, category: ["thing"] },
  defaults: {
    steps: 6,
    guidanceScale: 2,
    truncation: 0.9,
    temperature: 1,
    topK: 0,
    sampler: "exact",
  },
};

/** Writes a pipeline with random weights to a temporary folder and returns the folder. */
export async function tinyPipeline(): Promise<string> {
  const tokenizer = new TextTokenizer(trainWordVocabulary(["a red heart", "a blue cat"]));
  const config: TextToTokenConfig = {
    condition: {
      text: { vocabulary: tokenizer.vocabularySize, padToken: tokenizer.padId, length: 6, width: 16, layers: 1, heads: 2 },
      attributes: { style: 2, category: 1 },
    },
    transformer: {
      codes: 20,
      grid: [4, 4],
      width: 24,
      layers: 2,
      heads: 3,
      timesteps: 12,
      condition: { kind: "text", width: 16 },
    },
  }; // prettier-ignore
  const codec = vqgan(tinyCodec);
  const model = textToToken(config);
  const folder = await mkdtemp(join(tmpdir(), "smalti-tiny-"));
  await saveVqDiffusion(folder, {
    name: "tiny",
    settings: tinySettings,
    codec: { config: tinyCodec, weights: initialValues([...codec.parameters, ...codec.states], 3) },
    model,
    weights: initialValues(model.parameters, 4),
    tokenizer,
  });
  return folder;
}
