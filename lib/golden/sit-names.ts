// Words of willisma/SiT in ours, for the golden cases of its transport.
import type { DiffusionForm, PathName } from "../processes/interpolant.js";
import type { TransportPrediction } from "../processes/path-range.js";
import type { TransportWeight } from "../processes/interpolant-loss.js";

export const sitPaths: Readonly<Record<string, PathName>> = {
  Linear: "linear",
  GVP: "gvp",
  VP: "vp",
};

export const sitPredictions: Readonly<Record<string, TransportPrediction>> = {
  velocity: "velocity",
  noise: "eps",
  score: "score",
};

export const sitWeights: Readonly<Record<string, TransportWeight>> = {
  none: "none",
  velocity: "velocity",
  likelihood: "likelihood",
};

/** The spelling of the last is that of the reference. */
export const sitForms: Readonly<Record<string, DiffusionForm>> = {
  constant: "constant",
  SBDM: "sbdm",
  sigma: "sigma",
  linear: "linear",
  decreasing: "decreasing",
  "inccreasing-decreasing": "increasing-decreasing",
};
