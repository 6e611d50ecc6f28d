// First values of a discriminator with ActNorm: scale and shift that normalise what it sees of the first pictures. Source:
// Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1.
import type { PatchDiscriminator } from "../models/patch-discriminator.js";
import type { Shape } from "../ir/shape.js";
import type { Buffer } from "../runtime/buffer.js";
import { compile } from "../runtime/program.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";

export interface CriticStart {
  /** State of autoencoder and discriminator, by name; the first values are written there. */
  buffers: ReadonlyMap<string, Buffer>;
  /** Pictures in [-1, 1], and their shape (B, H, W, C). */
  images: Float32Array;
  shape: Shape;
  /** What the discriminator sees of them. */
  reconstruct: (images: Tensor) => Tensor;
}

/** Writes the first scales and shifts, from the reconstructions of the first pictures. */
export async function initialiseCritic(
  critic: PatchDiscriminator,
  { buffers, images, shape, reconstruct }: CriticStart,
): Promise<void> {
  const graph = trace(
    (t) => {
      const seen = reconstruct(t.input("images", { shape }));
      const { state } = critic.forward(seen, { mode: "initialise", state: critic.state(t) });
      for (const [name, value] of Object.entries(state)) t.output(name, value);
    },
    { parameters: "state" },
  );
  using program = await compile(graph);
  using session = await program.bind(Object.fromEntries(buffers));
  const values = await session.run({ images });
  for (const [name, value] of Object.entries(values)) buffers.get(name)!.write(value);
}
