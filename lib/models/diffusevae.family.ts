// How DiffuseVAE checkpoints are recognised: kpandey008/DiffuseVAE stores the VAE alone or, in the
// second stage, two copies of the U-Net beside it, of which the averaged one is for sampling.
import { DiffusionError } from "../errors.js";
import { classesOf, recognisable, unetPaths } from "./adm.family.js";
import { admUnetKeys } from "./adm.keys.js";
import { checkFields, isObject, limits, text, whole } from "./check-config.js";
import { configureDdpm, ddpmFacts, ddpmMarks, latentOf } from "./ddpm-unet.family.js";
import { ddpmUnetKeys } from "./ddpm-unet.keys.js";
import { diffuseVaeConfigs, diffuseVaeUnetConfigs } from "./diffusevae-configs.js";
import { diffuseVaeUnet } from "./diffusevae-unet.js";
import type { DiffuseVaeUnetConfig } from "./diffusevae-unet.js";
import { diffuseVae } from "./diffusevae-vae.js";
import type { DiffuseVaeConfig } from "./diffusevae-vae.js";
import { diffuseVaeKeys } from "./diffusevae.keys.js";
import { diffuseVaePipeline } from "./pipeline-facts.js";
import type { ConfigFile, FactValues, Family, ShapeView } from "./family.js";
import { shapeInLayout, mapKey } from "../nn/key-map.js";

const unetPlaces = [/^target_network\.decoder\./, /^online_network\.decoder\./];

const heads = {
  what: "attention heads, which change no shape: 8 in the released conditional models, 1 in the unconditional ones",
  rule: whole(1, limits.width),
};

const imageChannels = 3;

/** The reconstruction doubles the channels that come in. */
const isConditional = (shapes: ShapeView, firstLayer: string): boolean =>
  shapes.ratio(shapes.extent(firstLayer, 1), imageChannels, "input images") === 2;

const build = (config: object): ReturnType<typeof diffuseVaeUnet> =>
  diffuseVaeUnet(config as DiffuseVaeUnetConfig);

function configureMain(shapes: ShapeView, given: FactValues): DiffuseVaeUnetConfig {
  const { residualResample, ...paths } = unetPaths(shapes);
  void residualResample;
  return {
    ...paths,
    ...classesOf(shapes),
    ...latentOf(shapes),
    imageChannels,
    outChannels: shapes.extent("out.2.weight", 0),
    conditional: isConditional(shapes, "input_blocks.0.0.weight"),
    resolution: given["resolution"] as number,
    heads: given["heads"] as number,
    groups: given["groups"] as number,
  };
}

const configureReproduction = (shapes: ShapeView, given: FactValues): DiffuseVaeUnetConfig => ({
  ...configureDdpm(shapes, given, imageChannels),
  variant: "reproduction",
  conditional: isConditional(shapes, "conv_in.weight"),
  heads: given["heads"] as number,
});

const layoutRules = {
  resolution: whole(1, limits.side),
  encoder: text(4096),
  decoder: text(4096),
  encoderChannels: text(4096),
  decoderChannels: text(4096),
};

/** Whether the tensors are those of a configuration: no shape shows where maps are pooled. */
function isLayout(shapes: ShapeView, config: DiffuseVaeConfig): boolean {
  const wanted = diffuseVae(config).parameters;
  return (
    wanted.length === shapes.shapes.size &&
    wanted.every(({ name, shape }) => {
      const foreign = shapes.shapes.get(name);
      const match = foreign && mapKey(diffuseVaeKeys, name, foreign);
      return (
        typeof match === "object" && shapeInLayout(foreign!, match.layout).join() === shape.join()
      );
    })
  );
}

function configureVae(shapes: ShapeView, given: FactValues): DiffuseVaeConfig {
  const layout = given["layout"] as Partial<DiffuseVaeConfig>;
  if (Object.keys(layout).length > 0) {
    checkFields(`${shapes.where}: layout`, layout, layoutRules);
    return layout as DiffuseVaeConfig;
  }
  const known = Object.values(diffuseVaeConfigs).find((config) => isLayout(shapes, config));
  if (known) return known;
  throw new DiffusionError(
    "checkpoint",
    `${shapes.where}: expected the tensors of a published DiffuseVAE, got ${shapes.shapes.size} others; set layout to {${Object.keys(layoutRules).join(", ")}}`,
  );
}

/** A data set's yaml: vae.model and vae.data, in files of both stages. */
function readVaeConfig(file: ConfigFile): Record<string, unknown> | undefined {
  const dataset = isObject(file["dataset"]) ? file["dataset"] : file;
  const { vae } = dataset;
  if (!isObject(vae) || !isObject(vae["model"]) || !isObject(vae["data"])) return undefined;
  const { model, data } = vae as Record<"model" | "data", Record<string, unknown>>;
  return {
    layout: {
      resolution: data["image_size"],
      encoder: model["enc_block_config"],
      decoder: model["dec_block_config"],
      encoderChannels: model["enc_channel_config"],
      decoderChannels: model["dec_channel_config"],
    },
  };
}

/** Only these U-Nets project a latent; without one the names are those of ADM and of DDPM. */
const projection = /^proj\.0\.weight$/;

const isReproduction = ([name]: [string, object]): boolean => name.includes("reproduction");
const unets = Object.entries(recognisable(diffuseVaeUnetConfigs));

export const diffuseVaeFamilies: readonly Family[] = [
  {
    name: "diffusevae-unet",
    title: "DiffuseVAE U-Net, main branch (kpandey008/DiffuseVAE)",
    model: "diffusevae-unet",
    role: "model",
    whole: projection,
    places: unetPlaces,
    marks: [
      /^time_embed\.0\.weight$/,
      /^output_blocks\.0\.0\.in_layers\.2\.weight$/,
      /^out\.2\.weight$/,
    ],
    facts: { ...ddpmFacts, heads },
    configure: configureMain,
    keys: () => admUnetKeys,
    build,
    pipeline: diffuseVaePipeline,
    published: Object.fromEntries(unets.filter((row) => !isReproduction(row))),
  },
  {
    name: "diffusevae-unet-reproduction",
    title: "DiffuseVAE U-Net, reproduction branch (kpandey008/DiffuseVAE)",
    model: "diffusevae-unet",
    role: "model",
    whole: projection,
    places: unetPlaces,
    marks: ddpmMarks,
    facts: { ...ddpmFacts, heads },
    configure: configureReproduction,
    keys: () => ddpmUnetKeys,
    build,
    pipeline: diffuseVaePipeline,
    published: Object.fromEntries(unets.filter(isReproduction)),
  },
  {
    name: "diffusevae-vae",
    title: "DiffuseVAE first stage (kpandey008/DiffuseVAE)",
    model: "diffusevae-vae",
    role: "codec",
    places: [/^vae\./],
    marks: [/^enc\.in_conv\.weight$/, /^enc\.logvar\.weight$/, /^dec\.last_conv\.weight$/],
    facts: {
      layout: {
        what: "block and channel strings of a VAE that is none of the published",
        rule: (value) => (isObject(value) ? undefined : "an object"),
        fixed: {},
      },
    },
    readConfig: readVaeConfig,
    configure: configureVae,
    keys: () => diffuseVaeKeys,
    build: (config) => diffuseVae(config as DiffuseVaeConfig),
    published: diffuseVaeConfigs,
  },
];
