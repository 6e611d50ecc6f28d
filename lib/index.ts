// The public surface of the package: named re-exports only.
export { DiffusionError, type ErrorCode } from "./errors.js";
export { version } from "./version.js";

// Pipelines: ready to use.
export { VqDiffusionPipeline } from "./pipelines/vq-diffusion.js";
export { DiffusionPipeline } from "./pipelines/diffusion.js";
export {
  loadPipeline,
  savePipeline,
  type LoadOptions,
  type Pipeline,
  type PipelineKind,
} from "./pipelines/load-pipeline.js";
export { saveDiffusion, type DiffusionContents } from "./pipelines/diffusion-folder.js";
export type { DiffusionSettings } from "./pipelines/diffusion-settings.js";
export type { GenerateOptions, StreamOptions } from "./pipelines/generate-options.js";
export type {
  DiffusionGenerateOptions,
  DiffusionStreamOptions,
} from "./pipelines/diffusion-options.js";
export { denoiser, denoiserNames, type Denoiser, type DenoiserName } from "./models/denoiser.js";
export type {
  DiffusionProcess,
  GaussianProcess,
  InterpolantProcess,
} from "./models/diffusion-process.js";
export type { DiffusionSampling } from "./trainers/diffusion-sampling.js";
export { GeneratedImage } from "./pipelines/generated-image.js";
export type { GenerateEvent } from "./pipelines/events.js";
export { Codec } from "./pipelines/codec.js";
export { loadTokenizerRun, saveTokenizerRun } from "./pipelines/tokenizer-run.js";

// Images and text.
export {
  decodeImage,
  decodeFloatImage,
  encodePng,
  writePng,
  readPngMetadata,
} from "./image/image-io.js";
export type { ByteImage, FloatImage, Image } from "./image/image-io.js";
export { contactSheet, sideBySide } from "./image/grid.js";
export { TextTokenizer } from "./text/tokenizer.js";
export { ClipTokenizer } from "./text/clip-tokenizer.js";
export { trainWordVocabulary, trainBpeVocabulary } from "./text/vocabulary.js";

// Models, processes, samplers.
export { vqgan, type Vqgan, type VqganConfig } from "./models/vqgan.js";
export {
  vqTransformer,
  type VqTransformer,
  type VqTransformerConfig,
} from "./models/vq-transformer.js";
export { vqganConfigs } from "./models/vqgan-configs.js";
export { vqTransformerConfigs } from "./models/vq-transformer-configs.js";
export {
  autoencoderKl,
  type AutoencoderKl,
  type AutoencoderKlConfig,
} from "./models/autoencoder-kl.js";
export { autoencoderKlConfigs } from "./models/autoencoder-kl-configs.js";
export { klFirstStage, vqFirstStage, type FirstStage } from "./models/first-stage.js";
export {
  latentDiffusionUnet,
  type LatentDiffusionUnet,
  type LatentDiffusionUnetConfig,
} from "./models/latent-diffusion-unet.js";
export { latentDiffusionUnetConfigs } from "./models/latent-diffusion-configs.js";
export { powerCosineScale } from "./models/class-guidance.js";
export { codeRemap, usedCodesOfReduction } from "./models/vector-quantizer.js";
export { lpips, type Lpips, type LpipsConfig } from "./models/lpips.js";
export { dit, ditConfigs, publishedDit, type Dit, type DitConfig } from "./models/dit.js";
export {
  clipTextEncoder,
  clipTextConfigs,
  type ClipTextEncoderConfig,
} from "./models/clip-text-encoder.js";
export { fit, fitConfigs, type Fit, type FitConfig } from "./models/fit.js";
export { sit, sitConfigs, type SitConfig } from "./models/sit.js";
export { conditioner, type ConditionerConfig } from "./models/conditioner.js";
export { textEncoder, type TextEncoderConfig } from "./models/text-encoder.js";
export { textToToken, type TextToTokenConfig } from "./models/text-to-token.js";
export { transformerAlone, type TokenModel } from "./models/token-model.js";
export { admUnet, type AdmUnet, type AdmUnetConfig } from "./models/adm-unet.js";
export {
  admEncoderUnet,
  type AdmEncoderUnet,
  type AdmEncoderUnetConfig,
} from "./models/adm-encoder-unet.js";
export { admClassifierConfigs, admUnetConfigs, admUpsamplerConfigs } from "./models/adm-configs.js";
export { ddpmUnet, type DdpmUnet, type DdpmUnetConfig } from "./models/ddpm-unet.js";
export { ddpmUnetConfigs } from "./models/ddpm-configs.js";
export { diffuseVae, type DiffuseVae, type DiffuseVaeConfig } from "./models/diffusevae-vae.js";
export {
  diffuseVaeUnet,
  type DiffuseVaeUnet,
  type DiffuseVaeUnetConfig,
} from "./models/diffusevae-unet.js";
export { diffuseVaeConfigs, diffuseVaeUnetConfigs } from "./models/diffusevae-configs.js";
export { divae, type Divae, type DivaeConfig } from "./models/divae.js";
export { divaeConfigs, uvitDecoders } from "./models/divae-configs.js";
export type { DecoderInput, DiffusionDecoder } from "./models/diffusion-decoder.js";
export type { UnetInput } from "./models/unet-input.js";
export { patchDiscriminator, type PatchDiscriminatorConfig } from "./models/patch-discriminator.js";
export { maskReplaceSchedule, pairCoefficients, coefficientTable } from "./processes/schedules.js";
export {
  discretePlan,
  releasedFastPlan,
  discreteStepGraph,
  sampleDiscrete,
} from "./samplers/discrete.js";
export { purityPlan, purityStepGraph, samplePurity } from "./samplers/purity.js";
export { samplerNames, samplerOf, samplers, type SamplerName } from "./samplers/samplers.js";
export type { Solver } from "./samplers/solver.js";
export { adaptiveFlow } from "./samplers/flow-adaptive.js";
export { adaptiveDpmSolver } from "./samplers/dpm-adaptive.js";
export { networkNoise, networkVelocity, noisePlan, velocityPlan } from "./samplers/adaptive.js";
export { fastOrders } from "./samplers/dpm-solver-3s.js";
export {
  diffusionForms,
  pathLevel,
  pathLevels,
  pathLine,
  pathNames,
  type DiffusionForm,
  type PathLevel,
  type PathName,
} from "./processes/interpolant.js";
export {
  interpolate,
  transportCoefficients,
  transportLoss,
  transportTable,
} from "./processes/interpolant-loss.js";
export { chainLine } from "./processes/chain-line.js";
export { defaultEpsilons, stochasticTimeRange, timeRange } from "./processes/path-range.js";
export {
  DiscreteSigmas,
  exponentialSigmas,
  karrasSigmas,
  polyexponentialSigmas,
  sigmaLevel,
  sigmaLine,
  vpSigmas,
} from "./processes/sigmas.js";
export { denoiserCoefficients, denoiserLoss, denoiserTable } from "./processes/denoiser-loss.js";
export {
  chainLevel,
  chainLevels,
  chainOf,
  gaussianChain,
  respacedChain,
  type ChainOptions,
  type GaussianChain,
} from "./processes/gaussian.js";
export {
  edmPreconditioning,
  predictions,
  scaledInput,
  unitVariance,
  type Level,
  type LevelLine,
  type Parameterisation,
} from "./processes/gaussian-levels.js";
export {
  corrupt,
  gaussianLoss,
  gaussianTable,
  predictedPosterior,
  priorTerm,
  variationalTerm,
} from "./processes/gaussian-loss.js";
export * as schedules from "./processes/gaussian-schedules.js";
export * as respacing from "./processes/respacing.js";
export { outputWeight, type WeightingName } from "./processes/gaussian-weighting.js";
export {
  sampleContinuous,
  type ContinuousPlan,
  type ContinuousSampler,
  type ContinuousState,
} from "./samplers/continuous.js";
export { continuousStepGraph, type ContinuousDenoiser } from "./samplers/continuous-step.js";
export { ddim } from "./samplers/ddim.js";
export { ddpm, previousMean } from "./samplers/ddpm.js";
export { inversion } from "./samplers/inversion.js";
export {
  classifierFree,
  guidanceInputs,
  guidanceInterval,
  isGuided,
  labelLogProbability,
  withAndWithoutPair,
} from "./samplers/guidance.js";

// Training.
export { trainLoop, type Trainable, type TrainLoopOptions } from "./trainers/loop.js";
export type { TrainEvent } from "./trainers/events.js";
export {
  TrainStep,
  type LossTerms,
  type OptimiserOptions,
  type StepOutputs,
  type TrainStepOptions,
} from "./trainers/train-step.js";
export { readRecipe, recipeLr, type Recipe } from "./trainers/recipe.js";
export { adamw, sgd, type AdamState, type AdamWOptions } from "./optim/adamw.js";
export { clipByGlobalNorm, globalNorm } from "./optim/clip.js";
export { ema, warmEmaDecay } from "./optim/ema.js";
export * as learningRates from "./optim/schedule.js";
export type { LearningRate } from "./optim/schedule.js";
export { psnr } from "./metrics/psnr.js";
export { AutoencoderTrainer } from "./trainers/autoencoder.js";
export { AutoencoderKlTrainer } from "./trainers/autoencoder-kl.js";
export { classifierTask, type ClassifierTaskOptions } from "./trainers/classifier.js";
export { divaeTask, type DivaeTaskOptions } from "./trainers/divae.js";
export { discreteTask, type DiscreteTaskOptions } from "./trainers/discrete.js";
export {
  TaskTrainer,
  type TaskTrainerOptions,
  type BatchPlace,
  type BatchValues,
  type FinishedStep,
  type TrainingTask,
} from "./trainers/task-trainer.js";
export {
  denoiserTask,
  type DenoiserConditions,
  type DenoiserNetwork,
  type DenoiserTaskOptions,
} from "./trainers/denoiser.js";

// Data and checkpoints.
export { buildEmojiDataset } from "./data/emoji.js";
export { openEmojiDataset } from "./data/emoji-pack.js";
export { openFashionMnist } from "./data/fashion-mnist.js";
export { openImageFolder } from "./data/image-folder.js";
export { loadBatches, type Batch, type Cursor, type LoaderOptions } from "./data/loader.js";
export { memoryDataset, selectFrom, type ImageDataset } from "./data/dataset.js";
export { openTrainingData, type TrainingData } from "./data/training-data.js";
export { openSafetensors, writeSafetensors } from "./checkpoint/safetensors.js";
export { openCheckpoint, type OpenOptions } from "./checkpoint/open-checkpoint.js";
export type { Checkpoint } from "./checkpoint/checkpoint.js";
export {
  convertModels,
  identify,
  type ConvertOptions,
  type Identified,
} from "./pipelines/import-checkpoint.js";
export { loadWeights, saveWeights } from "./checkpoint/weights.js";
export {
  loadTrainingState,
  saveTrainingState,
  type TrainingProgress,
} from "./checkpoint/training-state.js";

// Graphs and the core, for own models.
export { trace, type Trace } from "./trace/trace.js";
export { Tensor } from "./trace/tensor.js";
export * as functions from "./trace/functions.js";
export { ParamScope } from "./nn/module.js";
export { initialValues } from "./nn/init.js";
export { gradients } from "./autodiff/differentiate.js";
export { compile, Program, Session, type Quantize } from "./runtime/program.js";
export { Buffer as DeviceBuffer } from "./runtime/buffer.js";
export { describeBackends, configureBackend } from "./runtime/device.js";
export { nearestCodes, maskAndReplace } from "./kernels/kernels.js";
