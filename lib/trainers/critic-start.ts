// First values of a discriminator with ActNorm: scale and shift that normalise what it sees of the first pictures. Source:
// Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1.
import type { PatchDiscriminator } from "../models/patch-discriminator.js";
import type { Vqgan } from "../models/vqgan.js";
import type { Buffer } from "../runtime/buffer.js";
import { compile } from "../runtime/program.js";
import { trace } from "../trace/trace.js";

/** Writes the first scales and shifts into `buffers`, from the reconstructions of `images` (B, H, W, C) in [-1, 1]. */
export async function initialiseCritic(
  model: Vqgan,
  critic: PatchDiscriminator,
  buffers: ReadonlyMap<string, Buffer>,
  images: Float32Array,
): Promise<void> {
  const { resolution: size, imageChannels = 3 } = model.config;
  const shape = [images.length / (size * size * imageChannels), size, size, imageChannels];
  const graph = trace(
    (t) => {
      const { quantised } = model.quantizer.quantise(model.encode(t.input("images", { shape })));
      const seen = model.decode(quantised);
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
