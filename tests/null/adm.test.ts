// ADM U-Nets at every published size, without weights: traced, differentiated, verified, compiled and planned, and
// nothing is executed.
import { describe, it } from "vitest";
import { admUnetConfigs } from "../../lib/models/adm-configs.js";
import { admUnet } from "../../lib/models/adm-unet.js";
import type { AdmUnetConfig } from "../../lib/models/adm-unet.js";
import { entriesOf, expectGoodPlan, forwardOnly, unetInput, withGradients } from "./plans.js";

describe("ADM U-Net", () => {
  it.each(entriesOf<AdmUnetConfig>(admUnetConfigs))("%s", async (_, config) => {
    const model = admUnet(config);
    const forward = unetInput(model, config.resolution, config);
    await expectGoodPlan(forwardOnly(forward));
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, 60_000);
}); // prettier-ignore
