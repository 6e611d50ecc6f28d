// SiT: the network of DiT as the velocity (or noise, or score) of an interpolant. It is given t from
// 0 (noise) to 1 (data) as it is, and its variance channels are thrown away. Source: Ma et al. 2024,
// arXiv:2401.08740; willisma/SiT models.py.
import { DiffusionError } from "../errors.js";
import type { ParamScope } from "../nn/module.js";
import { dit, ditConfigs } from "./dit.js";
import type { Dit, DitConfig } from "./dit.js";

export interface SitConfig extends DitConfig {
  /** Default "discarded": the published networks were built with variance channels. */
  sigma?: "discarded" | "none";
}

/** As dit, with an output (B, H, W, channels). */
export function sit(config: SitConfig, scope?: ParamScope): Dit {
  const { sigma = "discarded" } = config;
  if (!["discarded", "none"].includes(sigma)) {
    throw new DiffusionError(
      "option",
      `sit: expected sigma to be one of discarded, none, got ${JSON.stringify(sigma)}`,
    );
  }
  return dit({ ...config, sigma }, scope);
}

/** Configurations of the published sizes by name, e.g. "XL/2", for 256 x 256 pixels. */
export const sitConfigs = Object.fromEntries(
  Object.entries(ditConfigs).map(([name, config]) => [name, { ...config, sigma: "discarded" }]),
) as Readonly<Record<keyof typeof ditConfigs, SitConfig>>;
