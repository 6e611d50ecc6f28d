// A caption becomes a picture, with progress. Run after `npm run build`: node examples/caption-to-picture.mjs "a red heart"
import { loadPipeline } from "smalti";

const prompt = process.argv[2] ?? "a red heart";
const pipe = await loadPipeline("emoji-64");
for await (const event of pipe.stream({ prompt, seed: 7 })) {
  if (event.type === "warning") console.error(event.message);
  if (event.type === "step") process.stderr.write(`\rstep ${event.step}/${event.steps}`);
  if (event.type === "done") await event.images[0].save("picture.png");
}
console.error("\npicture.png");
pipe.dispose();
