/**
 * The engine in the browser: writes texts with packed models, token by token, and gives the event loop time in between. A model
 * is unpacked when it is first used. For what an engine offers see app.js; this one touches no page.
 */
import { Text, withoutHalves } from "./decoder.js";
import { createFormats } from "./formats.js";
import { loadModel } from "./model.js";
import { createRandom } from "./random.js";
import { exp } from "./sampling.js";

const MIN_FIELD = 3; // characters of a field, where tokens are characters
const DRAW_STREAM = 0x5c4e; // of what is drawn, beside that of the tokens
const MOST_READ = 4; // tokens that are listed for each head
const MAX_BUSY = 10; // milliseconds until the event loop gets time

/** Returns the engine of some packed models, `{manifest, readBlob}`; the plugins are those of `loadModel`. */
export function createBrowserEngine(packed, plugins) {
  const loaded = Object.create(null); // by id, a promise of the model
  const load = (id) => (loaded[id] ??= loadModel(packed.find(({ manifest }) => manifest.id === id), plugins));
  const models = async () => packed.map(({ manifest }) => manifest);
  return { models, complete: (request, signal) => complete(load, request, signal) };
}

/** Yields the events of a request: the tokens of all its texts, in turn, and the end of each. */
async function* complete(load, request, signal) {
  const model = await load(request.model);
  const config = readSettings(model, request);
  const { prompt = "", n = 1, seed = Math.floor(Math.random() * 2 ** 32), alternatives = 0 } = request;
  if (config.do_sample === false && n > 1) throw new Error("At temperature 0 all texts of a prompt are the same: ask for one.");
  const fields = model.conditions.filter(({ kind }) => kind === "text").map((field) => textOf(field, config.conditions));
  const words = config.choices.length > 0 ? "any" : config.words; // the words of a choice are known
  const spelling = model.spellingOf(words, fields.join(" "));
  const formats = createFormats(model, words === "known" ? spelling : null, config);
  const writers = Array.from({ length: n }, (_, number) => {
    const conditionIds = encodeConditions(model, config, createRandom(seed, number, DRAW_STREAM));
    return writeText(model, new Text(model, config, spelling, formats, { prompt, conditionIds, seed, number }), number, alternatives);
  });
  let since = performance.now();
  while (writers.length > 0 && !signal?.aborted) {
    const writer = writers.shift();
    const { value, done } = writer.next();
    if (done) continue;
    writers.push(writer);
    yield value;
    if (performance.now() - since > MAX_BUSY) {
      await pause();
      since = performance.now();
    }
  }
}

/** Yields the events of a text. */
function* writeText(model, text, index, alternatives) {
  const { tokenizer } = model;
  let [shown, whole, count] = [text.prompt, "", 0]; // whole: what the first `count` ids are decoded to
  for (const { token, logits, attention, place } of text.write()) {
    if (token < 0) { // tokens were taken back
      [shown, whole, count] = [withoutHalves(text.decoded()), "", 0];
      yield { type: "back", index, text: shown };
      continue;
    }
    const { weights, total } = weighTokens(logits, tokenizer);
    const bits = Math.abs(Math.log2(weights[token] / total)); // abs, for there is a minus zero
    let added = ""; // while a character is incomplete
    if (token !== tokenizer.eosId) {
      const decoded = whole + tokenizer.decode(text.ids.slice(count));
      if (!decoded.endsWith("\ufffd")) [whole, count] = [decoded, text.ids.length];
      const now = withoutHalves(text.finishReason === null ? text.prompt + decoded.slice(text.promptLength) : text.text);
      added = now.slice(shown.length);
      if (added !== "") shown = now;
    }
    const reads = attention && { place, reads: mostRead(model, attention, [...text.prefix, ...text.ids].slice(0, place)) };
    yield { type: "token", index, text: added, bits, alternatives: mostProbable(model, weights, total, alternatives), ...reads };
  }
  yield { type: "end", index, reason: text.finishReason, text: text.text, copied: [] };
}

/** Returns the probability of each token at temperature 1, up to a factor, and their sum. */
function weighTokens(logits, { vocabSize, bosId }) {
  const weights = new Float64Array(vocabSize);
  let [largest, total] = [-Infinity, 0];
  for (let token = 0; token < vocabSize; token++) if (logits[token] > largest && token !== bosId) largest = logits[token];
  for (let token = 0; token < vocabSize; token++) if (token !== bosId) total += weights[token] = exp(logits[token] - largest);
  return { weights, total };
}

/** Returns the most probable tokens; of equals, those with smaller ids. */
function mostProbable({ tokenizer: { eosId }, pieces }, weights, total, count) {
  let [top, lowest] = [[], 0]; // a token of more weight is one of them
  for (let token = 0; token < weights.length; token++) {
    if (!(weights[token] > lowest)) continue;
    const place = top.findLastIndex((other) => weights[other] >= weights[token]) + 1;
    top = top.toSpliced(place, 0, token).slice(0, count);
    lowest = weights[top[count - 1]] ?? 0;
  }
  return top.map((token) => ({ text: pieces.texts[token], probability: weights[token] / total, isEnd: token === eosId }));
}

/** Returns the tokens that each head reads most at the last of some ids, with their places among the ids and their weights. */
function mostRead({ tokenizer: { bosId, vocabSize }, pieces }, attention, ids) {
  const nameOf = (id) => (id >= vocabSize ? "(condition)" : id === bosId ? "(start)" : pieces.texts[id] || "(part of a character)");
  const readsOf = (weights) => {
    const ranked = [...weights].map((weight, token) => ({ weight, place: ids.length - weights.length + token }));
    const most = ranked.sort((one, other) => other.weight - one.weight).slice(0, MOST_READ);
    return most.filter(({ weight }) => weight >= 0.01).map((each) => ({ ...each, text: nameOf(ids[each.place]) }));
  };
  const number = (heads, layer) => heads.map((weights, head) => ({ name: `layer ${layer + 1}, head ${head + 1}`, tokens: readsOf(weights) }));
  return attention.flatMap(number);
}

/** Returns the settings of a request: the model's defaults, and what the request has in their place. */
function readSettings({ defaults }, request) {
  const config = { ...defaults, ...(request.profile === "likeness" ? defaults.likeness : {}) };
  for (const [name, value] of Object.entries(request)) {
    const setting = name === "max_tokens" ? "max_new_tokens" : name;
    if (setting in config && setting !== "conditions" && value !== null && value !== undefined) config[setting] = value;
  }
  for (const name of ["stop_strings", "include", "exclude", "choices"]) config[name] = [config[name] ?? []].flat();
  config.conditions = { ...defaults.conditions, ...request.conditions };
  if (config.temperature === 0) [config.temperature, config.do_sample] = [1, false];
  if ((config.num_beams ?? 1) > 1) config.do_sample = false; // a page does not search with beams
  if (request.min_new_tokens === undefined) config.min_new_tokens = Math.min(config.min_new_tokens, config.max_new_tokens);
  return config;
}

/** Returns the ids between bos and the text; what is not given is drawn, or unspecified where nothing is sampled. */
function encodeConditions({ conditions, tokenizer }, { conditions: given, do_sample: isSampled }, random) {
  let first = tokenizer.vocabSize;
  const ids = conditions.flatMap((condition) => {
    const { name, kind, values: known } = condition;
    const asked = given[name] ?? (isSampled === false ? "any" : "draw");
    const isDrawn = kind !== "text" && asked === "draw" && !known.some(({ label }) => label === "draw");
    const value = isDrawn ? drawValue(known, random()) : asked;
    const number = plain(value) === "" ? NaN : Number(value); // belongs to the first bin that holds it
    const isValue = (each) => each.label === plain(value) || (each.low !== null && each.low <= number && number <= each.high);
    const own = first;
    first += 1 + known.length;
    if (kind !== "text") return own + 1 + known.findIndex(isValue); // without a value, own
    const text = textOf(condition, given);
    if (text === "") return [];
    const [atFirst, later] = [text, ` ${text}`].map(tokenizer.encode);
    if (![later.slice(1), later].map(String).includes(String(atFirst))) return [own, ...later, own, ...atFirst];
    return atFirst.length < MIN_FIELD ? [] : [own, ...atFirst];
  });
  return conditions.some(({ kind }) => kind === "text") ? [...ids, first] : ids; // the id that ends the fields
}

/** Returns the label of the value at a place from 0 to 1 among the shares of the training texts; undefined if it has none. */
function drawValue(values, place) {
  let share = 0;
  return values.find((value) => place < (share += value.share))?.label;
}

/** Returns a value as text with single spaces. */
const plain = (value) => String(value ?? "").trim().split(/\s+/).join(" ");

/** Returns the value of a field as the model reads it. */
const textOf = ({ name, lowercase }, values) => (lowercase ? plain(values[name]).toLowerCase() : plain(values[name]));

/** Lets other work of the page go on, sooner than a timer would. */
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(null);
  });
}
