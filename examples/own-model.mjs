// A network of one's own: traced once, differentiated, compiled, run.
import { compile, DeviceBuffer, functions, gradients, trace } from "smalti";

const graph = trace(
  (t) => {
    const x = t.input("x", { shape: [8, 4] });
    const w = t.parameter({ name: "w", shape: [4, 2], init: { kind: "zeros" } });
    const loss = functions.silu(x.matmul(w)).sub(1).square().mean();
    const [grad] = gradients(loss, [w]);
    t.output("loss", loss);
    t.update("w", w.sub(grad.mul(0.5)));
  },
  { parameters: "state" },
);
const program = await compile(graph);
console.log(program.plan());
const session = await program.bind({ w: DeviceBuffer.alloc("f32", [4, 2]) });
const x = Float32Array.from({ length: 32 }, (_, i) => Math.sin(i));
for (let step = 0; step < 5; ++step) console.log("loss", (await session.run({ x })).loss[0]);
