/** Runs the model in a folder on what `request.json` asks for; the logits go to `logits.bin` as float64, the rest is printed as JSON. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const { makeStepper, feed, continueGreedily, measureSpeed } = await import(
  `data:text/javascript,${encodeURIComponent(readFileSync(new URL("steppers.js", import.meta.url), "utf8"))}`
);

const bytes = readFileSync(join(folder, "tensors.bin"));
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const { texts = [], greedy, speed } = read("request.json");
const { stepper, milliseconds } = await makeStepper(read("sources.json"), read("model.json"), buffer);
writeFileSync(join(folder, "logits.bin"), Buffer.concat(feed(stepper, texts).map((row) => Buffer.from(Float64Array.from(row).buffer))));
const written = greedy ? continueGreedily(stepper, greedy.prompt, greedy.count) : null;
const fast = speed ? measureSpeed(stepper, speed.prompt, speed.bursts, speed.tokens) : null;
console.log(JSON.stringify({ milliseconds, greedy: written, tokensPerSecond: fast }));
