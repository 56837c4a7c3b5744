/** Answers the questions in a JSON file with the modules of the browser engine, and prints the answers as JSON. */

import { readFileSync } from "node:fs";

const { root, questions } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const load = (name) => import(`file://${root}/${name}`);
const loadSource = async (source) => (await import(`data:text/javascript;base64,${Buffer.from(source).toString("base64")}`)).default;

async function loadSources(sources) {
  const made = await Promise.all(Object.values(sources).map(loadSource));
  return Object.fromEntries(Object.keys(sources).map((name, place) => [name, made[place]]));
}

/** Returns the engine of a packed model in a folder. */
async function createEngine({ folder, steppers, tokenizers }) {
  const { createBrowserEngine } = await load("browser_engine.js");
  const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf8"));
  const plugins = { steppers: await loadSources(steppers), tokenizers: await loadSources(tokenizers) };
  return createBrowserEngine([{ manifest, readBlob: () => readFileSync(`${folder}/blob.bin`) }], plugins);
}

/** Returns what a request gives: the ends of its texts, what the tokens added, and their bits and alternatives; or the error. */
async function complete(engine, request) {
  const texts = Array.from({ length: request.n ?? 1 }, () => ({ shown: request.prompt ?? "", bits: [], alternatives: [] }));
  try {
    for await (const { index, ...event } of engine.complete(request)) {
      if (event.type === "end") Object.assign(texts[index], { text: event.text, reason: event.reason });
      else if (event.type === "back") texts[index].shown = event.text;
      else {
        texts[index].shown += event.text;
        texts[index].bits.push(event.bits);
        texts[index].alternatives.push(event.alternatives);
      }
    }
  } catch (error) {
    return { error: error.message };
  }
  return { texts };
}

const answers = {
  async random({ streams, count }) {
    const { createRandom } = await load("random.js");
    return streams.map(([seed, number]) => Array.from({ length: count }, createRandom(seed, number)));
  },
  async base85({ texts }) {
    const { fromBase85 } = await load("model.js");
    return texts.map((text) => Array.from(fromBase85(text)));
  },
  async tokenize({ source, files, texts, ids }) {
    const tokenizer = (await loadSource(source))({}, files);
    const { vocabSize, bosId, eosId } = tokenizer;
    const bytes = Array.from({ length: vocabSize }, (_, id) => Array.from(tokenizer.tokenBytes(id)));
    return { vocabSize, bosId, eosId, bytes, encoded: texts.map(tokenizer.encode), decoded: ids.map(tokenizer.decode) };
  },
  async sentences({ texts }) {
    const { sentenceEnds } = await load("sentences.js");
    return texts.map((text) => sentenceEnds(text));
  },
  async split({ source, files, texts }) {
    const { createPieces, splitPrompt } = await load("decoder.js");
    const tokenizer = (await loadSource(source))({}, files);
    const pieces = createPieces(tokenizer);
    return texts.map((text) => splitPrompt(tokenizer, pieces, text));
  },
  async complete({ model, requests }) {
    const engine = await createEngine(model);
    const results = [];
    for (const request of requests) results.push(await complete(engine, request));
    return results;
  },
  /** Counts the timers that go off while a text is written, and the tokens that come after it is stopped. */
  async stop({ model, request }) {
    const engine = await createEngine(model);
    await complete(engine, { ...request, max_tokens: 1 }); // loads the model
    const controller = new AbortController();
    let [timers, before, after] = [0, 0, 0];
    const timer = setInterval(() => timers++, 1);
    for await (const _ of engine.complete(request, controller.signal)) {
      if (controller.signal.aborted) after++;
      else if (++before && timers === 3) controller.abort();
    }
    clearInterval(timer);
    return { timers, before, after };
  },
  async models({ model }) {
    return (await createEngine(model)).models();
  },
};

const results = [];
for (const { ask, ...question } of questions) results.push(await answers[ask](question));
process.stdout.write(JSON.stringify(results));
