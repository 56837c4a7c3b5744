/**
 * The engine in the browser: writes texts with packed models, token by token, and gives the event loop time in between. A model is
 * unpacked when it is first used.
 *
 * It has the same two methods as the engine over HTTP: `models()` and `complete(request, signal)`. Touches no DOM.
 */

import { createRow, decode } from "./decoder.js";
import { exp } from "./exponential.js";
import { loadModel, unpack } from "./model.js";
import { withoutHalves } from "./stopping.js";

const MAX_BUSY = 10; // milliseconds until the event loop gets time
const MAX_TEXTS = 64; // of one request
const OPTIONS = { max_tokens: "max_new_tokens", stop: "stop_strings" }; // names of a request, and those of the settings

/**
 * Returns the engine of some packed models.
 * @param {{manifest: object, readBlob: () => Uint8Array}[]} packed `readBlob` returns the gzipped arrays.
 * @param {{steppers: Object<string, Function>, tokenizers: Object<string, Function>}} plugins As for `loadModel`.
 */
export function createBrowserEngine(packed, plugins) {
  const loaded = new Map(); // by id, a promise of the model
  function load(id) {
    const model = packed.find(({ manifest }) => manifest.id === id);
    if (model === undefined) throw new Error(`There is no model ${id} here; there is ${packed.map(({ manifest }) => manifest.id).join(", ")}.`);
    if (!loaded.has(id)) loaded.set(id, unpack(model.readBlob()).then((buffer) => loadModel(model.manifest, buffer, plugins)));
    return loaded.get(id);
  }
  return {
    async models() {
      return packed.map(({ manifest }) => describe(manifest));
    },
    complete(request, signal) {
      return complete(load, request, signal);
    },
  };
}

/** Returns what a page needs to know of a model. */
function describe({ id, preset, conditions, generationConfig, facts, card }) {
  return { id, preset, conditions, defaults: generationConfig, hasIndex: false, facts, card };
}

/** Yields the events of a request: the tokens of all its texts, in turn, and the end of each. */
async function* complete(load, request, signal) {
  const model = await load(request.model);
  if (request.novelty) throw new Error("This page has no index of the training text, which the novelty filter needs.");
  const config = readSettings(model, request);
  let writers = startTexts(model, request, config);
  let since = performance.now();
  while (writers.length > 0) {
    for (const writer of writers) {
      if (signal?.aborted) return;
      yield writer.next();
      if (performance.now() - since > MAX_BUSY) {
        await pause();
        since = performance.now();
      }
    }
    writers = writers.filter((writer) => !writer.isDone());
  }
}

/** Returns a writer of each text. */
function startTexts(model, request, config) {
  const count = request.n ?? 1;
  if (!Number.isInteger(count) || count < 1 || count > MAX_TEXTS) {
    throw new Error(`The number of texts must be a whole number from 1 to ${MAX_TEXTS}; got ${count}.`);
  }
  if (config.do_sample === false && count > 1) throw new Error("At temperature 0 all texts of a prompt are the same: ask for one.");
  const spelling = model.spelling(config.words);
  const prefix = encodeConditions(model, config.conditions);
  const seed = request.seed ?? Math.floor(Math.random() * 2 ** 32);
  return Array.from({ length: count }, (_, index) => {
    const row = createRow(model, request.prompt ?? "", prefix, seed, index);
    return createWriter(model, row, config, spelling, index, request.alternatives ?? 0);
  });
}

/** Returns an object whose `next` gives the next event of a text, the last of which is its end. */
function createWriter(model, row, config, spelling, index, alternatives) {
  const steps = decode(model, row, config, spelling);
  const shown = { text: row.prompt, whole: "", count: 0 }; // whole: the text of the first `count` ids
  let isDone = false;
  return {
    isDone: () => isDone,
    next() {
      const { value, done } = steps.next();
      if (done) {
        isDone = true;
        return { type: "end", index, reason: row.finishReason, text: row.text, copied: [] };
      }
      const weights = weighTokens(value.logits, model.tokenizer);
      const text = newText(model, row, shown, value.token);
      return { type: "token", index, text, bits: bitsOf(weights, value.token), alternatives: best(model, weights, alternatives) };
    },
  };
}

/** Returns what the newest token adds to the shown text; the empty string while a character is incomplete. */
function newText({ tokenizer }, row, shown, token) {
  if (token === tokenizer.eosId) return "";
  const decoded = shown.whole + tokenizer.decode(row.ids.slice(shown.count));
  if (!decoded.endsWith("\ufffd")) [shown.whole, shown.count] = [decoded, row.ids.length]; // not inside a character
  const text = withoutHalves(row.finishReason === null ? row.prompt + decoded.slice(row.promptLength) : row.text);
  const added = text.slice(shown.text.length);
  if (added !== "") shown.text = text;
  return added;
}

/** Returns the probability of each token at temperature 1, up to a factor, and their sum. */
function weighTokens(logits, { vocabSize, bosId }) {
  const weights = new Float64Array(vocabSize);
  let [largest, total] = [-Infinity, 0];
  for (let token = 0; token < vocabSize; token++) if (logits[token] > largest && token !== bosId) largest = logits[token];
  for (let token = 0; token < vocabSize; token++) {
    if (token !== bosId) total += weights[token] = exp(logits[token] - largest);
  }
  return { weights, total };
}

function bitsOf({ weights, total }, token) {
  return Math.abs(Math.log2(weights[token] / total)); // abs, for there is a minus zero
}

/** Returns the most probable tokens; of equals, those with smaller ids. */
function best({ tokenizer, pieces }, { weights, total }, count) {
  const top = [];
  let lowest = 0; // a token of more weight is one of them
  for (let token = 0; token < weights.length && count > 0; token++) {
    if (!(weights[token] > lowest)) continue;
    let place = top.length;
    while (place > 0 && weights[token] > weights[top[place - 1]]) place--;
    top.splice(place, 0, token);
    top.length = Math.min(top.length, count);
    if (top.length === count) lowest = weights[top[count - 1]];
  }
  return top.map((token) => ({
    text: token === tokenizer.eosId ? "" : pieces.texts[token],
    probability: weights[token] / total,
    isEnd: token === tokenizer.eosId,
  }));
}

/** Returns the settings of a request: the model's defaults, and what the request has in their place. */
function readSettings({ generation }, request) {
  const config = { ...generation };
  for (const [name, value] of Object.entries(request)) {
    const setting = OPTIONS[name] ?? name;
    if (setting in config && setting !== "conditions" && value !== null && value !== undefined) config[setting] = value;
  }
  config.stop_strings = [config.stop_strings].flat();
  config.conditions = { ...generation.conditions, ...request.conditions };
  if (config.temperature === 0) [config.temperature, config.do_sample] = [1, false];
  if ((config.num_beams ?? 1) > 1) config.do_sample = false; // a page does not search with beams
  checkSettings(config);
  return config;
}

function checkSettings(config) {
  const within = (name, low, high, isAbove = false) => {
    const value = config[name];
    const isInside = typeof value === "number" && value <= high && (isAbove ? value > low : value >= low);
    if (!isInside) throw new Error(`${name} must be ${isAbove ? "above" : "at least"} ${low}, and at most ${high}; got ${value}.`);
  };
  for (const temperature of [config.temperature].flat()) {
    if (!(temperature > 0 && temperature < Infinity)) throw new Error(`temperature must be a number of at least 0; got ${temperature}.`);
  }
  within("top_p", 0, 1, true);
  within("min_p", 0, 1);
  within("top_k", 0, Infinity);
  within("max_new_tokens", 0, Number.MAX_SAFE_INTEGER);
  within("min_new_tokens", 0, config.max_new_tokens);
}

/** Returns one id for each condition; a condition that is missing or null is unspecified. */
function encodeConditions({ conditions, tokenizer }, values) {
  for (const name of Object.keys(values)) {
    if (!conditions.some((each) => each.name === name)) throw new Error(`${name} is not a condition of this model.`);
  }
  let first = tokenizer.vocabSize;
  return conditions.map((condition) => {
    const value = values[condition.name] ?? null;
    const id = value === null ? first : first + 1 + findValue(condition, value);
    first += 1 + condition.values.length;
    return id;
  });
}

/** Returns the index of a value of a condition; a number belongs to the first bin that holds it. */
function findValue({ name, kind, values }, value) {
  const number = kind === "number" && String(value).trim() !== "" ? Number(value) : NaN;
  const label = String(value).trim().split(/\s+/).join(" ");
  const index = values.findIndex(
    (known) => known.label === label || (known.low !== null && known.low <= number && number <= known.high),
  );
  if (index >= 0) return index;
  throw new Error(`${name} has the values ${values.map((known) => known.label).join(", ")}; got ${value}.`);
}

/** Lets other work of the page go on. */
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
