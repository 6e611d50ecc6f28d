// Limits on the time of a piece of work that hold on however busy a machine.

/** Starts a clock of the milliseconds that processors work for this process. */
export function processorTime(): () => number {
  const start = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(start);
    return (user + system) / 1000;
  };
}
