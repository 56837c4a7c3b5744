/**
 * The engine over HTTP: OpenAI's completions protocol with the fields that `reviewgen serve` adds, in each item `reviewgen`.
 * Touches no page.
 */
import { readEvents } from "./sse.js";

const FRAME = 16; // milliseconds
const UNREACHABLE = "The server cannot be reached: it may have been stopped.";

/**
 * Returns an engine; see app.js for what it offers.
 * @param {string} base  The address that `v1/` stands under.
 * @param {function(): Promise<string|null>} askForKey  Asks the user for an API key, where the server wants one.
 */
export function createHttpEngine(base, askForKey) {
  let key = null;
  const send = async (path, options = {}) => {
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const response = await reach(new URL(path, base), { ...options, headers });
    if (response.status !== 401 || !(key = await askForKey())) return checked(response);
    return send(path, options);
  };
  const indexed = new Set(); // the models that find copied spans
  return {
    models: async () => {
      const models = (await (await send("v1/models")).json()).data.map(toModel);
      for (const model of models) if (model.hasIndex) indexed.add(model.id);
      return models;
    },
    complete: (request, signal) => complete(send, toBody(request, indexed.has(request.model)), request, signal),
  };
}

/** Returns a model of the server's list as the page knows it. */
function toModel({ id, reviewgen = {} }) {
  const { preset = id, conditions = [], defaults = {}, has_index: hasIndex = false, facts = [], card = "" } = reviewgen;
  return { id, preset, conditions, defaults, hasIndex, facts, card };
}

async function* complete(send, fields, request, signal) {
  const body = JSON.stringify(fields);
  const response = await send("v1/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    signal,
  });
  const texts = Array.from({ length: request.n }, () => request.prompt);
  const ended = new Set();
  let drawn = performance.now();
  for await (const data of guarded(readEvents(response.body))) {
    if (data === "[DONE]") break;
    if (performance.now() - drawn > FRAME) {
      await new Promise((resolve) => setTimeout(resolve)); // what waits to be read must not keep the page from drawing
      drawn = performance.now();
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    for (const choice of chunk.choices ?? []) yield* eventsOf(choice, texts, ended);
  }
  if (ended.size < texts.length && !signal.aborted) throw new Error("The server stopped before the text was written.");
}

/** Returns the fields of a request; what is not set is left out. Where the server can, it reports copied spans at least. */
function toBody({ alternatives, ...request }, isIndexed) {
  const novelty = request.novelty ?? (isIndexed ? "report" : null);
  const set = Object.entries({ ...request, novelty }).filter(([, value]) => value !== null && value !== undefined);
  return { ...Object.fromEntries(set), logprobs: alternatives, stream: true };
}

/** Yields the events of a choice of a chunk. */
function* eventsOf({ index, text, finish_reason: reason, reviewgen = {} }, texts, ended) {
  for (const token of reviewgen.tokens ?? []) yield { type: "token", index, ...toToken(token) };
  texts[index] += text ?? "";
  if (!reason || ended.has(index)) return;
  ended.add(index);
  yield { type: "end", index, reason, text: reviewgen.text ?? texts[index], copied: reviewgen.copied ?? [] };
}

/** Returns a token with bits and probabilities instead of logarithms. */
function toToken({ text, logprob, alternatives = [] }) {
  const toAlternative = (each) => ({ text: each.text, probability: Math.exp(each.logprob), isEnd: each.is_end ?? false });
  return { text, bits: -logprob / Math.LN2, alternatives: alternatives.map(toAlternative) };
}

/** Returns what a server answers; that it cannot be reached is an Error with a sentence. */
function reach(url, options) {
  return fetch(url, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error(UNREACHABLE);
  });
}

/** Returns a response; one that tells of an error is an Error with the server's sentence. */
async function checked(response) {
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error?.message ?? `The server answered with the status ${response.status}.`);
}

/** Yields what a stream yields; where the connection breaks, the error says so. */
async function* guarded(events) {
  try {
    yield* events;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The connection to the server broke.");
  }
}
