// `smalti doctor`: what this machine offers, and why each backend is or is not usable.
import { Command } from "commander";
import { describeBackends } from "../runtime/device.js";
import { exitCodes, formatBytes, result } from "./terminal.js";

export const doctor = new Command("doctor")
  .description(
    "Show the CPU, instruction sets, threads, memory and backends, and what is wrong if anything is.",
  )
  .option("--json", "print only JSON on stdout")
  .action((options: { json?: true }) => {
    const report = describeBackends();
    const lines = [
      `node      ${process.version}, Node-API ${process.versions.napi}`,
      ...(report.cpu
        ? [
            `cpu       ${report.cpu.name}`,
            `isa       ${report.cpu.isa} (available: ${report.cpu.isas.join(", ")})`,
            `threads   ${report.cpu.threads}`,
            `memory    ${formatBytes(report.cpu.availableBytes)} free of ${formatBytes(report.cpu.physicalBytes)}`,
          ]
        : []),
      ...report.backends.map(
        ({ name, usable, reason }) =>
          `${name.padEnd(9)} ${usable ? "usable" : "not usable"}: ${reason}`,
      ),
    ];
    if (!report.backends.some(({ usable }) => usable)) process.exitCode = exitCodes.device;
    result(report, lines.join("\n"), options.json);
  });
