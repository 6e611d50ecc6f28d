// `smalti doctor`: what this machine offers, and why each backend is or is not usable.
import { Command } from "commander";
import { describeBackends, type BackendReport } from "../runtime/device.js";
import { withCommonOptions, type ProcessOptions } from "./options.js";
import { exitCodes, formatBytes, result } from "./terminal.js";

const describeCpu = (cpu: NonNullable<BackendReport["cpu"]>): string[] => [
  `cpu       ${cpu.name}`,
  `isa       ${cpu.isa} (available: ${cpu.isas.join(", ")})`,
  `threads   ${cpu.threads}`,
  `memory    ${formatBytes(cpu.availableBytes)} free of ${formatBytes(cpu.physicalBytes)}`,
];

const ineffective = { seed: "nothing is drawn" };

export const doctor = withCommonOptions(new Command("doctor"), ineffective)
  .summary("what this machine offers, and what is wrong")
  .description(
    "Show the CPU, instruction sets, threads, memory and backends, and what is wrong if anything is.",
  )
  .action((options: ProcessOptions) => {
    const report = describeBackends(options);
    const lines = [
      `node      ${process.version}, Node-API ${process.versions.napi}`,
      ...(report.cpu ? describeCpu(report.cpu) : []),
      ...report.backends.map(
        ({ name, usable, reason }) =>
          `${name.padEnd(9)} ${usable ? "usable" : "not usable"}: ${reason}`,
      ),
    ];
    if (!report.backends.some(({ usable }) => usable)) process.exitCode = exitCodes.device;
    result(report, lines.join("\n"), options.json);
  });
