// `smalti train tokenizer|autoencoder|divae|vq-diffusion|vae|denoiser|classifier`: a recipe, a data set and an output folder; resumable.
import { existsSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Command, Option } from "commander";
import { openTrainingData, type TrainingData } from "../data/training-data.js";
import { DiffusionError, throwIfAborted } from "../errors.js";
import { asWriteError, inFolder } from "../files/atomic-write.js";
import type { BuiltTraining, TrainingStart } from "../pipelines/built-training.js";
import {
  buildDenoiserTrainer,
  buildVaeTrainer,
  loadFirstStage,
  loadVae,
} from "../pipelines/denoiser-training.js";
import {
  buildAutoencoderTrainer,
  buildClassifierTrainer,
  buildDivaeTrainer,
} from "../pipelines/model-training.js";
import { packagedModels } from "../pipelines/pipeline.js";
import { loadTokenizerRun } from "../pipelines/tokenizer-run.js";
import { buildTokenizerTrainer, buildVqDiffusionTrainer } from "../pipelines/training.js";
import type { TrainEvent } from "../trainers/events.js";
import { given } from "../trainers/given.js";
import { trainLoop, type Trainable } from "../trainers/loop.js";
import { readRecipe, recipeLr, type Recipe } from "../trainers/recipe.js";
import {
  applyCommonOptions,
  realNumber,
  seedOption,
  wholeNumber,
  withProcessOptions,
  type CommonOptions,
} from "./options.js";
import { interruptSignal, progress, result, say } from "./terminal.js";

interface TrainOptions extends Omit<CommonOptions, "seed"> {
  seed?: number;
  recipe: string;
  data?: string;
  out: string;
  steps?: number;
  minutes?: number;
  saveMinutes: number;
  resume?: true;
  from?: string;
}

interface Outcome {
  step: number;
  reason: "finished" | "interrupted";
  seconds: number;
  loss: number;
  metrics: Record<string, number>;
}

/** The recipe with what the flags change. Throws "option" for frozen parts that no folder gives weights to. */
function withFlags<R extends Recipe>(recipe: R, options: TrainOptions): R {
  const { from, resume } = options;
  if (recipe.freeze?.length && from === undefined && !resume)
    throw new DiffusionError(
      "option",
      `train: expected --from <folder> with the weights of the frozen ${recipe.freeze.join(", ")}, got none`,
    );
  return { ...recipe, ...given(options, "data", "steps", "seed") };
}

/** A path from here, or else that file of the package, so that the default recipes are found from any folder. */
function recipeFile(path: string): string {
  const packaged = join(dirname(packagedModels()), path);
  return !existsSync(path) && existsSync(packaged) ? packaged : path;
}

const maxTimerMs = 2 ** 31 - 1; // a longer one fires at once

/** A signal that aborts after some minutes. */
export function timeLimit(minutes: number): AbortSignal {
  const controller = new AbortController();
  const end = performance.now() + minutes * 60_000;
  const wait = (): void => {
    const left = end - performance.now();
    if (left <= 0) controller.abort();
    else setTimeout(wait, Math.min(left, maxTimerMs)).unref();
  };
  wait();
  return controller.signal;
}

/** log.jsonl: every event as a JSON line. A failed write aborts `failed`, so that the loop saves and stops. */
class TrainingLog {
  readonly #failed = new AbortController();

  private constructor(
    readonly path: string,
    readonly file: FileHandle,
  ) {}

  static async open({ out, resume }: TrainOptions): Promise<TrainingLog> {
    const path = join(out, "log.jsonl");
    const file = await open(path, resume ? "a" : "w").catch((error: unknown) => {
      throw asWriteError(error, "train", "data", path);
    });
    return new TrainingLog(path, file);
  }

  get failed(): AbortSignal {
    return this.#failed.signal;
  }

  async write(event: TrainEvent): Promise<void> {
    if (this.failed.aborted) return;
    await this.file.appendFile(`${JSON.stringify(event)}\n`).catch((error: unknown) => {
      this.#failed.abort(asWriteError(error, "train", "data", this.path));
    });
  }

  async close(): Promise<void> {
    await this.file.close().catch(() => undefined);
  }
}

const stateFile = ({ out }: TrainOptions): string => join(out, "state.safetensors");

/** A run is never overwritten, and a mistyped folder is not begun anew as if it were resumed. Throws "option". */
function checkRun(options: TrainOptions): void {
  const { out, resume = false } = options;
  const exists = existsSync(stateFile(options));
  if (exists && !resume)
    throw new DiffusionError(
      "option",
      `train: expected --out to be a new run, got "${out}", which holds a training state; add --resume to go on with it, or name another folder`,
    );
  if (!resume && existsSync(join(out, "pipeline.json")))
    throw new DiffusionError(
      "option",
      `train: expected --out to be a new run, got "${out}", which holds a pipeline; name another folder`,
    );
  if (resume && !exists)
    throw new DiffusionError(
      "option",
      `train: expected a training state to resume in "${out}", got none; leave out --resume to begin a run there`,
    );
}

/** Runs the loop until it ends, `interrupted` fires or the minutes are over, logging every event. */
async function runLoop(
  trainable: Trainable,
  recipe: Recipe,
  options: TrainOptions,
  interrupted: AbortSignal,
): Promise<Outcome> {
  const { minutes, saveMinutes } = options;
  const log = await TrainingLog.open(options);
  const bar = progress(recipe.name);
  const start = performance.now();
  const outcome: Outcome = { step: 0, reason: "finished", seconds: 0, loss: NaN, metrics: {} };
  const events = trainLoop(trainable, {
    steps: recipe.steps,
    lr: recipeLr(recipe),
    checkpoint: stateFile(options),
    resume: options.resume === true,
    reportEvery: 10,
    saveMinutes,
    signal: AbortSignal.any([
      ...[interrupted, log.failed],
      ...(minutes === undefined ? [] : [timeLimit(minutes)]),
    ]),
  });
  try {
    for await (const event of events) {
      await log.write(event);
      if (event.type === "step") {
        const { loss, samplesPerSecond, metrics } = event;
        const values = Object.entries({ loss, ...metrics }).map(
          ([name, value]) => `${name} ${value.toPrecision(4)}`,
        );
        bar.update(
          event.step,
          recipe.steps,
          `${values.join(" ")} ${samplesPerSecond.toFixed(1)}/s`,
        );
        Object.assign(outcome, { loss, metrics, step: event.step });
      } else if (event.type === "done") {
        Object.assign(outcome, { step: event.step, reason: event.reason });
      }
    }
  } finally {
    bar.stop();
    await log.close();
  }
  if (log.failed.aborted) throw savedAnyway(log.failed.reason as DiffusionError, outcome.step);
  outcome.seconds = (performance.now() - start) / 1000;
  if (outcome.reason === "interrupted")
    say(`saved after step ${outcome.step}; continue with --resume`);
  return outcome;
}

const savedAnyway = (error: DiffusionError, step: number): DiffusionError =>
  new DiffusionError(
    error.code,
    `${error.message}; the state after step ${step} is saved, continue with --resume`,
    { cause: error.cause },
  );

const withTrainOptions = (command: Command, recipe: string, out: string): Command =>
  withProcessOptions(command)
    .addOption(seedOption("seed of all randomness (default: the recipe's)"))
    .option("--recipe <file>", "recipe in JSON", recipe)
    .option("--data <source>", '"emoji", "fashion-mnist" or a folder (default: the recipe\'s)')
    .option("--out <folder>", "training state, log and result", out)
    .addOption(
      new Option("--steps <n>", "steps in all (default: the recipe's)").argParser(wholeNumber(1)),
    )
    .addOption(
      new Option("--minutes <n>", "save and stop after this time").argParser(realNumber(0.01, 1e5)),
    )
    .addOption(
      new Option("--save-minutes <n>", "minutes between checkpoints")
        .argParser(realNumber(0, 1e5))
        .default(5),
    )
    .option("--from <folder>", "start from the weights of this run or pipeline")
    .option("--resume", "continue from the state in --out");

interface TrainKind<Kind extends Recipe["kind"], Options extends TrainOptions> {
  kind: Kind;
  description: string;
  /** Default recipe. */
  recipe: string;
  /** Further flags. */
  flags?: (command: Command) => Command;
  build: (
    recipe: Extract<Recipe, { kind: Kind }>,
    options: Options,
    signal: AbortSignal,
  ) => Promise<BuiltTraining>;
}

/** The command of one kind of recipe. */
function trainCommand<Kind extends Recipe["kind"], Options extends TrainOptions = TrainOptions>({
  kind,
  description,
  recipe: file,
  flags = (command) => command,
  build,
}: TrainKind<Kind, Options>): Command {
  return flags(withTrainOptions(new Command(kind), file, `runs/${kind}`))
    .description(description)
    .action(async (options: Options) => {
      applyCommonOptions(options);
      const recipe = withFlags(await readRecipe(recipeFile(options.recipe), kind), options);
      checkRun(options);
      const signal = interruptSignal("stopping; press Ctrl-C again to end at once");
      const { trainer, save } = await inFolder(options.out, "train", async () => {
        const built = await build(recipe, options, signal);
        throwIfAborted(signal, "train");
        return built;
      });
      const outcome = await runLoop(trainer, recipe, options, signal);
      await save(options.out, { ...outcome });
      result(outcome, `${options.out}: ${outcome.reason} after step ${outcome.step}`, options.json);
    });
}

const startOf = (options: TrainOptions): TrainingStart => ({
  ...given(options, "from"),
  isResumed: options.resume === true,
});

/** Builds what needs nothing but pictures of a size. */
const onPictures =
  <R extends Recipe>(
    sizeOf: (recipe: R) => number,
    build: (recipe: R, data: TrainingData, start: TrainingStart) => Promise<BuiltTraining>,
  ) =>
  async (recipe: R, options: TrainOptions): Promise<BuiltTraining> =>
    build(recipe, await openTrainingData(recipe.data, sizeOf(recipe)), startOf(options));

const tokenizer = trainCommand({
  kind: "tokenizer",
  description: "Train a VQGAN tokenizer.",
  recipe: "recipes/emoji-tokenizer.json",
  build: onPictures(({ model }) => model.resolution, buildTokenizerTrainer),
});

const vqDiffusion = trainCommand<"vq-diffusion", TrainOptions & { tokenizer: string }>({
  kind: "vq-diffusion",
  description:
    "Train a model of pictures, told captions, classes or nothing, on the tokens of a tokenizer.",
  recipe: "recipes/emoji-vq-diffusion.json",
  flags: (command) =>
    command.option(
      "--tokenizer <folder>",
      "folder of a tokenizer run or of a pipeline",
      "runs/tokenizer",
    ),
  async build(recipe, options, signal) {
    const codec = await loadTokenizerRun(options.tokenizer);
    const data = await openTrainingData(recipe.data, codec.config.resolution);
    const bar = progress("tokenise");
    const onProgress = (done: number): void => bar.update(done, data.train.length);
    const start = { ...startOf(options), onProgress, signal };
    const built = await buildVqDiffusionTrainer(recipe, data, codec, start);
    bar.stop();
    return built;
  },
});

const vae = trainCommand({
  kind: "vae",
  description: "Train the first stage of DiffuseVAE.",
  recipe: "recipes/fashion-mnist-vae.json",
  build: onPictures(({ model }) => model.resolution, buildVaeTrainer),
});

interface DenoiserFlags extends TrainOptions {
  vae?: string;
  firstStage?: string;
}

const denoiser = trainCommand<"denoiser", DenoiserFlags>({
  kind: "denoiser",
  description:
    "Train a denoiser of pictures, of latents or of the reconstructions of a VAE, on a chain or a flow.",
  recipe: "recipes/fashion-mnist-ddpm.json",
  flags: (command) =>
    command
      .option("--vae <folder>", "refine the reconstructions of this VAE")
      .option("--first-stage <folder>", "denoise latents of this tokenizer run or pipeline"),
  async build(recipe, options) {
    const { vae, firstStage } = options;
    const data = await openTrainingData(recipe.data, recipe.resolution);
    return buildDenoiserTrainer(recipe, data, {
      ...startOf(options),
      ...(vae !== undefined && { vae: await loadVae(vae) }),
      ...(firstStage !== undefined && { firstStage: await loadFirstStage(firstStage) }),
    });
  },
});

const autoencoder = trainCommand({
  kind: "autoencoder",
  description: "Train a KL autoencoder, the first stage of a denoiser of latents.",
  recipe: "recipes/fashion-mnist-autoencoder.json",
  build: onPictures(({ model }) => model.resolution, buildAutoencoderTrainer),
});

const divae = trainCommand({
  kind: "divae",
  description: "Train a tokenizer with a diffusion decoder.",
  recipe: "recipes/fashion-mnist-divae.json",
  build: onPictures(({ model }) => model.encoder.resolution, buildDivaeTrainer),
});

const classifier = trainCommand({
  kind: "classifier",
  description: "Train a classifier of noisy pictures, to guide a denoiser.",
  recipe: "recipes/fashion-mnist-classifier.json",
  build: onPictures(({ model }) => model.resolution, buildClassifierTrainer),
});

export const train = new Command("train")
  .summary("a tokenizer, an autoencoder, or a model of pictures, by a recipe")
  .description("Train a model by a recipe.")
  .addCommand(tokenizer)
  .addCommand(autoencoder)
  .addCommand(divae)
  .addCommand(vqDiffusion)
  .addCommand(vae)
  .addCommand(denoiser)
  .addCommand(classifier);
