// The version of the package, written into checkpoints and printed by the command.
export const version = "0.1.0";
