#!/usr/bin/env node
// The command `smalti`: dispatch, options that every command has, errors. One file per command beside this one.
import { Command } from "commander";
import { bench } from "./bench.js";
import { convert } from "./convert.js";
import { data } from "./data.js";
import { demo } from "./demo.js";
import { doctor } from "./doctor.js";
import { inspect } from "./inspect.js";
import { parity } from "./parity.js";
import { reconstruct } from "./reconstruct.js";
import { repro } from "./repro.js";
import { sample } from "./sample.js";
import { exitCodes, fail } from "./terminal.js";
import { tokens } from "./tokens.js";
import { train } from "./train.js";
import { version } from "../version.js";

const program = new Command("smalti")
  .description("Image synthesis by latent-conditioned and discrete diffusion.")
  .version(version)
  .showHelpAfterError("(try --help)")
  .showSuggestionAfterError()
  .addHelpText(
    "after",
    `\nExit codes: ${Object.entries(exitCodes)
      .map(([name, code]) => `${code} ${name}`)
      .join(", ")}.\nResults go to stdout, progress to stderr.`,
  );

for (const command of [
  demo,
  sample,
  reconstruct,
  tokens,
  repro,
  train,
  data,
  inspect,
  convert,
  doctor,
  bench,
  parity,
]) {
  program.addCommand(command);
}
program.configureOutput({ outputError: (text, write) => write(text) });

/** A wrong flag of any command, however deep, throws here instead of ending the process with another code. */
function throwErrors(command: Command): void {
  command.exitOverride().showHelpAfterError("(try --help)");
  command.commands.forEach(throwErrors);
}
throwErrors(program);

try {
  await program.parseAsync();
} catch (error) {
  const code = (error as { code?: string; exitCode?: number }).code;
  if (code?.startsWith("commander.")) {
    process.exitCode =
      (error as { exitCode: number }).exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  } else {
    fail(error);
  }
}
