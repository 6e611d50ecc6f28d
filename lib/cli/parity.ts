// `smalti parity`: compares our models, processes and samplers with stored numbers of the original implementations.
import { Command } from "commander";
import { runParity } from "../golden/parity.js";
import { applyCommonOptions, withCommonOptions, type ProcessOptions } from "./options.js";
import { exitCodes } from "./terminal.js";

interface ParityOptions extends ProcessOptions {
  filter?: string;
}

const ineffective = { seed: "a case holds its numbers" };

export const parity = withCommonOptions(new Command("parity"), ineffective)
  .summary("compare with golden cases")
  .description("Run every golden case below a folder and compare within the stored tolerances.")
  .argument("<folder>", "folder of golden cases")
  .option("--filter <glob>", "only cases whose name contains it or matches it, e.g. 'vqd_*'")
  .action(async (folder: string, options: ParityOptions) => {
    applyCommonOptions(options);
    const { filter, json = false } = options;
    const { failed, unsupported } = await runParity(folder, { json, ...(filter && { filter }) });
    if (failed + unsupported > 0) process.exitCode = exitCodes.failure;
  });
