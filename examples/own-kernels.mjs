// The token kernels on their own: nearest codebook rows, and one reverse step of mask-and-replace diffusion.
import { maskAndReplace, maskReplaceSchedule, nearestCodes } from "smalti";

const codebook = Float32Array.from({ length: 16 * 4 }, (_, i) => Math.sin(i));
const latents = Float32Array.from({ length: 3 * 4 }, (_, i) => Math.cos(i));
console.log("codes", await nearestCodes(latents, codebook, { width: 4 }));

const schedule = maskReplaceSchedule({ codes: 16, timesteps: 100 });
const { tokens, confidence } = await maskAndReplace.step(schedule, {
  logits: Float32Array.from({ length: 8 * 16 }, (_, i) => (i * 37) % 11),
  xt: new Int32Array(8).fill(16), // all masked
  levels: [{ t: 50, s: 40 }],
  uniform: Float32Array.from({ length: 8 }, (_, i) => (i + 0.5) / 8),
  guidanceScale: 1,
  truncation: 0.9,
});
console.log("tokens", tokens, "confidence", confidence);
