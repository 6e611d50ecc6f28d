// Which runner computes which kind of golden case.
import { admModelRunners } from "./adm-models.js";
import { admProcessRunners } from "./adm-process.js";
import { clipRunners } from "./clip.js";
import { clipTokenizerRunners } from "./clip-tokenizer.js";
import { diffuseVaeModelRunners } from "./diffusevae-models.js";
import { diffuseVaeProcessRunners } from "./diffusevae-process.js";
import { ditRunners } from "./dit.js";
import { diffusersModelRunners } from "./diffusers-models.js";
import { diffusersSamplingRunners } from "./diffusers-sampling.js";
import type { GoldenRunner } from "./evaluate.js";
import { kdiffRunners } from "./kdiff.js";
import { ldmFirstStageRunners } from "./ldm-first-stage.js";
import { ldmUnetRunners } from "./ldm-unet.js";
import { ldmSamplingRunners } from "./ldm-sampling.js";
import { sitIntegrateRunners } from "./sit-integrate.js";
import { sitTransportRunners } from "./sit-transport.js";
import { tamingRunners } from "./taming.js";
import { tamingAdversaryRunners } from "./taming-adversary.js";
import { tamingGumbelRunners } from "./taming-gumbel.js";
import { tamingLpipsRunners } from "./taming-lpips.js";
import { torchOpsRunners } from "./torch-ops.js";
import { torchOptimRunners } from "./torch-optim.js";
import { vqdMathRunners } from "./vqd-math.js";
import { vqdModelRunners } from "./vqd-model.js";
import { vqdSamplingRunners } from "./vqd-sampling.js";

export const runners: Readonly<Record<string, GoldenRunner>> = {
  ...torchOpsRunners,
  ...torchOptimRunners,
  ...tamingRunners,
  ...tamingAdversaryRunners,
  ...tamingGumbelRunners,
  ...tamingLpipsRunners,
  ...ldmFirstStageRunners,
  ...ldmUnetRunners,
  ...ldmSamplingRunners,
  ...diffusersModelRunners,
  ...diffusersSamplingRunners,
  ...vqdMathRunners,
  ...vqdModelRunners,
  ...vqdSamplingRunners,
  ...ditRunners,
  ...clipRunners,
  ...clipTokenizerRunners,
  ...admModelRunners,
  ...admProcessRunners,
  ...kdiffRunners,
  ...sitTransportRunners,
  ...sitIntegrateRunners,
  ...diffuseVaeModelRunners,
  ...diffuseVaeProcessRunners,
};
