// A file of torch.save as a checkpoint: the model's tensors by name, averaged weights where there are some.
import { DiffusionError } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import type { CheckpointParts, PlacedTensor } from "./checkpoint.js";
import { configsInside } from "./config-files.js";
import { innerAverages, sectionAverages, type Averages } from "./moving-average.js";
import type { TensorRef } from "./pickle-values.js";
import { isEmaSection, mainSections, sectionsOf, type Section } from "./sections.js";
import { placeTensor, readTorchFile } from "./torch-file.js";

/** Which of the tensors in a file are wanted. */
export interface Selection {
  /** Dictionary of the weights by its keys joined by dots, e.g. "model"; default the usual ones. */
  section?: string;
  /**
   * true: averaged weights (EMA) or an error; false: raw weights. Default: averaged weights where
   * the file has some, told in the notes.
   */
  ema?: boolean;
}

type Tensors = ReadonlyMap<string, TensorRef>;

/** The tensors of several dictionaries under their paths, or of one under its own names. */
function joined(sections: readonly Section[]): Tensors {
  if (sections.length === 1) return sections[0]!.tensors;
  return new Map(
    sections.flatMap(({ path, tensors }) =>
      [...tensors].map(([name, tensor]): [string, TensorRef] => [
        path === "" ? name : `${path}.${name}`,
        tensor,
      ]),
    ),
  );
}

const wrapped = /^(?:module|_orig_mod)\./;

/** Without the "module." of parallel training or "_orig_mod." of compilation before every name. */
function unwrap(tensors: Tensors): Tensors {
  const names = [...tensors.keys()].filter((name) => name !== "n_averaged");
  if (names.length === 0 || !names.every((name) => wrapped.test(name))) return tensors;
  return unwrap(new Map(names.map((name) => [name.replace(wrapped, ""), tensors.get(name)!])));
}

interface Chosen {
  tensors: Tensors;
  notes: string[];
}

/** The averages of a file, when it has any. */
function findAverages(
  raw: Tensors,
  sections: readonly Section[],
  mains: readonly Section[],
  where: string,
): Averages<TensorRef> | undefined {
  const own = sections.filter((section) => isEmaSection(section) && !mains.includes(section));
  if (own.length > 1)
    throw new DiffusionError(
      "option",
      `${where}: expected one set of averaged weights, got ${own.map(({ path }) => path).join(", ")}; name one with --section`,
    );
  const [section] = own;
  if (section && raw.size > 0) return sectionAverages(raw, unwrap(section.tensors), section.path);
  return innerAverages(raw, where);
}

function choose(sections: readonly Section[], selection: Selection, where: string): Chosen {
  let mains = mainSections(sections, selection.section, where);
  if (mains.length === 0 && sections.length === 1) mains = [sections[0]!];
  const raw = unwrap(joined(mains));
  const paths = mains.map(({ path }) => path).filter((path) => path !== "");
  const notes = paths.length > 0 ? [`weights from ${paths.join(", ")}`] : [];
  if (selection.section !== undefined && selection.ema === undefined)
    return { tensors: raw, notes };
  const averages =
    selection.ema === false && innerAverages(raw, where) === undefined
      ? undefined
      : findAverages(raw, sections, mains, where);
  if (!averages) {
    if (selection.ema === true)
      throw new DiffusionError(
        "option",
        `${where}: expected averaged weights (EMA), got none; leave the option out, or open the file that has them`,
      );
    return { tensors: raw, notes };
  }
  const tensors = new Map([...raw].filter(([name]) => !averages.own.has(name)));
  if (selection.ema === false) {
    notes.push(`raw weights; averaged ones (${averages.kind}) left out`);
    return { tensors, notes };
  }
  for (const [name, tensor] of averages.tensors) tensors.set(name, tensor);
  notes.push(
    `averaged weights (${averages.kind}, ${averages.tensors.size} tensors) in place of the raw ones; --no-ema takes the raw ones`,
  );
  return { tensors, notes };
}

/** Reads the description of every tensor of a model; their values stay in the file. */
export async function readTorchCheckpoint(
  source: ByteSource,
  isZip: boolean,
  selection: Selection,
): Promise<CheckpointParts> {
  const { where } = source;
  const file = await readTorchFile(source, isZip);
  const { sections, left } = sectionsOf(file.root, where);
  const { tensors, notes } = choose(sections, selection, where);
  const placed = new Map<string, PlacedTensor>();
  const unreadable: string[] = [];
  for (const [name, tensor] of tensors) {
    const place = await placeTensor(file, name, tensor);
    if (place) placed.set(name, place);
    else unreadable.push(`${name} (${tensor.type.name})`);
  }
  if (left.length > 0) notes.push(`left out: ${left.slice(0, 20).join(", ")}`);
  if (unreadable.length > 0) notes.push(`not readable: ${unreadable.slice(0, 20).join(", ")}`);
  return {
    format: file.format,
    tensors: placed,
    notes,
    configs: configsInside(file.root, where),
    close: () => source.close(),
  };
}
