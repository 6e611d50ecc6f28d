// All functions on tensors: ops, what is composed of them, and resampling of pictures.
export * from "./ops.js";
export * from "./composites.js";
export * from "./pooling.js";
export * from "./resize.js";
