// Checkpoints of the published ADM, DDPM and DiffuseVAE networks are recognised from names and shapes: what comes back is
// the configuration that made them.
import { describe, expect, it } from "vitest";
import type { ParamSpec } from "../../lib/ir/param.js";
import {
  admClassifierConfigs,
  admUnetConfigs,
  admUpsamplerConfigs,
} from "../../lib/models/adm-configs.js";
import { admFamilies } from "../../lib/models/adm.family.js";
import { ddpmUnetConfigs } from "../../lib/models/ddpm-configs.js";
import { ddpmFamilies } from "../../lib/models/ddpm-unet.family.js";
import { diffuseVaeConfigs, diffuseVaeUnetConfigs } from "../../lib/models/diffusevae-configs.js";
import { diffuseVaeFamilies } from "../../lib/models/diffusevae.family.js";
import { recognise } from "../../lib/models/families.js";
import type { Family } from "../../lib/models/family.js";
import { mapKey, shapeInLayout } from "../../lib/nn/key-map.js";
import type { KeyMap } from "../../lib/nn/key-map.js";

const all: readonly Family[] = [...admFamilies, ...ddpmFamilies, ...diffuseVaeFamilies];

const familyOf = (name: string): Family => all.find((family) => family.name === name)!;

/** The foreign shape whose layout gives ours. */
function foreignShape({ name, shape }: ParamSpec, keys: KeyMap): number[] {
  const reversed = [...shape].reverse();
  const candidates = [[...shape], reversed, [...reversed, 1], [...reversed, 1, 1], [shape[3]!, shape[2]!, shape[0]!, shape[1]!]]; // prettier-ignore
  return candidates.find((candidate) => {
    const match = mapKey(keys, name, candidate);
    if (typeof match !== "object" || match.name !== name) return false;
    return shapeInLayout(candidate, match.layout).join() === shape.join();
  })!;
}

/** Names and shapes of a checkpoint of this configuration, as the originals store them. */
function checkpoint(family: Family, config: object, place: string): Map<string, number[]> {
  const keys = family.keys(config, undefined as never);
  return new Map(
    family.build(config).parameters.map((spec) => [place + spec.name, foreignShape(spec, keys)]),
  );
}

/** What is recognised among all families, configured with facts of this configuration. */
function roundTrip(name: string, config: object, place = ""): object {
  const family = familyOf(name);
  const extra: [string, number[]][] = place.endsWith("decoder.") ? [["target_network.betas", [1000]]] : []; // prettier-ignore
  const found = recognise("test", new Map([...checkpoint(family, config, place), ...extra]));
  expect(found.map((match) => match.family.name)).toEqual([name]);
  const given = config as Record<string, unknown>;
  const unset: Record<string, unknown> = { heads: given["headChannels"] ? 0 : 1, headChannels: 0, attentionOrder: "heads-first" }; // prettier-ignore
  const facts = Object.fromEntries(
    Object.entries(family.facts).map(([key, { fixed }]) => [
      key,
      given[key] ?? unset[key] ?? fixed,
    ]),
  );
  return family.configure(found[0]!.shapes, facts);
}

describe("configurations come back", () => {
  it.each(Object.entries({ ...admUnetConfigs }))("ADM %s", (_, config) => {
    const { dropout, ...rest } = config as { dropout?: number };
    void dropout;
    expect(roundTrip("adm-unet", config)).toMatchObject({ superResolution: false, ...rest });
  });

  it.each(Object.entries(admUpsamplerConfigs))("ADM upsampler %s", (_, config) => {
    expect(roundTrip("adm-unet", config)).toMatchObject(config);
  });

  it.each(Object.entries(admClassifierConfigs))("ADM classifier %s", (_, config) => {
    for (const pool of ["attention", "adaptive", "spatial", "spatial-v2"])
      expect(roundTrip("adm-encoder-unet", { ...config, pool })).toMatchObject({ ...config, pool });
  });

  it.each(Object.entries(ddpmUnetConfigs))("DDPM %s", (_, config) => {
    const { dropout, ...rest } = config as { dropout?: number };
    void dropout;
    expect(roundTrip("ddpm-unet", config, "module.")).toMatchObject(rest);
  });

  it.each(Object.entries(diffuseVaeUnetConfigs))("DiffuseVAE U-Net %s", (name, config) => {
    const family = name.includes("reproduction")
      ? "diffusevae-unet-reproduction"
      : "diffusevae-unet";
    const { dropout, ...rest } = config;
    void dropout;
    const back = roundTrip(family, config, "target_network.decoder.");
    // factor 16 of a network with fewer levels leaves no trace
    const factors = "attentionFactors" in rest && { attentionFactors: rest.multipliers.length > 4 ? [16] : [] }; // prettier-ignore
    expect(back).toMatchObject({ conditional: true, ...rest, ...factors });
  });

  it.each(Object.entries(diffuseVaeConfigs))("DiffuseVAE VAE %s", (_, config) => {
    expect(roundTrip("diffusevae-vae", config, "vae.")).toEqual(config);
  });
});

describe("whole second-stage checkpoints", () => {
  it("hold a VAE and the averaged U-Net", () => {
    const unet = familyOf("diffusevae-unet");
    const shapes = new Map([
      ...checkpoint(unet, diffuseVaeUnetConfigs.cifar10, "online_network.decoder."),
      ...checkpoint(unet, diffuseVaeUnetConfigs.cifar10, "target_network.decoder."),
      ...checkpoint(familyOf("diffusevae-vae"), diffuseVaeConfigs.cifar10, "vae."),
    ]);
    const found = recognise("test", shapes);
    expect(found.map((match) => match.family.name)).toEqual(["diffusevae-unet", "diffusevae-vae"]);
    expect(found[0]!.origins.get("out.2.weight")).toBe("target_network.decoder.out.2.weight");
  });

  it("say what to set for a VAE that is none of the published", () => {
    const family = familyOf("diffusevae-vae");
    const config = {
      resolution: 8,
      encoder: "8x1,8d2,8t4,4x1,4d4,4t1,1x1",
      decoder: "1x1,1u4,1t4,4x1,4u2,4t8,8x1",
      encoderChannels: "8:64,4:32,1:16",
      decoderChannels: "8:16,4:32,1:16",
    };
    const [found] = recognise("test", checkpoint(family, config, ""));
    expect(() => family.configure(found!.shapes, { layout: {} })).toThrow(/set layout to/);
    expect(family.configure(found!.shapes, { layout: config })).toEqual(config);
    expect(() => family.configure(found!.shapes, { layout: { encodr: "" } })).toThrow(/encoder/);
  });
});
