/** Runs the model in a folder on `request.json`; the logits go to `logits.bin` as float64, the answer is printed as JSON. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const source = readFileSync(new URL("steppers.js", import.meta.url), "utf8");
const { run } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const buffer = new Uint8Array(readFileSync(join(folder, "tensors.bin"))).buffer;
const { logits, answer } = await run(read("sources.json"), read("model.json"), buffer, read("request.json"));
writeFileSync(join(folder, "logits.bin"), logits);
console.log(JSON.stringify(answer));
