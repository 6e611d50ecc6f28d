// `smalti parity`: compares our models, processes and samplers with stored numbers of the original implementations.
import { Command } from "commander";
import { runParity } from "../golden/parity.js";
import { exitCodes } from "./terminal.js";

interface ParityOptions {
  filter?: string;
  json?: true;
}

export const parity = new Command("parity")
  .description("Run every golden case below a folder and compare within the stored tolerances.")
  .argument("<folder>", "folder of golden cases")
  .option("--filter <glob>", "only cases whose name contains it or matches it, e.g. 'vqd_*'")
  .option("--json", "print only JSON on stdout")
  .action(async (folder: string, options: ParityOptions) => {
    const { failed } = await runParity(folder, options);
    if (failed > 0) process.exitCode = exitCodes.failure;
  });
