// Options handed on: those that are set, since one set to undefined is not the same as one left out.

/** The named entries of some options that they have. */
export const given = <Options extends object, Name extends keyof Options>(
  options: Options,
  ...names: Name[]
): { [K in Name]?: Exclude<Options[K], undefined> } =>
  Object.fromEntries(
    names.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]),
  ) as { [K in Name]?: Exclude<Options[K], undefined> };
