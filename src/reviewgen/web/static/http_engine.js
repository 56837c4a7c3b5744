/**
 * The engine over HTTP: OpenAI's completions protocol with the fields that `reviewgen serve` adds, in each item `reviewgen`.
 * Touches no page.
 */

const FRAME = 16; // milliseconds

/** Returns the engine of a server under an address; `askForKey` resolves to the user's API key, or to null. */
export function createHttpEngine(base, askForKey) {
  let [key, known] = [null, []];
  async function send(path, options = {}) {
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const response = await fetch(new URL(path, base), { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("The server cannot be reached: it may have been stopped.");
    });
    if (response.ok) return response;
    if (response.status === 401 && (key = await askForKey())) return send(path, options);
    const answer = await response.json().catch(() => ({}));
    throw new Error(answer.error?.message ?? `The server answered with the status ${response.status}.`);
  }
  return {
    models: async () => (known = (await (await send("v1/models")).json()).data.map(toModel)),
    complete(request, signal) {
      const { hasIndex, defaults } = known.find(({ id }) => id === request.model);
      const profile = Object.keys(defaults.likeness ?? {}).length > 0 ? request.profile || null : null;
      return complete(send, { ...request, profile, novelty: request.novelty ?? (hasIndex ? "report" : null) }, signal);
    },
  };
}

/** Returns a model of the server's list as the page knows it. */
function toModel({ id, reviewgen = {} }) {
  const { preset = id, conditions = [], defaults = {}, has_index: hasIndex = false, facts = [], card = "" } = reviewgen;
  return { id, preset, conditions, defaults, hasIndex, facts, card };
}

async function* complete(send, { alternatives, ...request }, signal) {
  const isSet = ([, value]) => value !== null && value !== undefined;
  const fields = { ...Object.fromEntries(Object.entries(request).filter(isSet)), logprobs: alternatives, stream: true };
  const headers = { "Content-Type": "application/json" };
  const response = await send("v1/completions", { method: "POST", headers, body: JSON.stringify(fields), signal });
  const texts = Array.from({ length: request.n }, () => request.prompt);
  const ended = new Set();
  let drawn = performance.now();
  for await (const data of readEvents(response.body)) {
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

/** Yields the events of a choice of a chunk, with bits and probabilities instead of logarithms. */
function* eventsOf({ index, text = "", finish_reason: reason, reviewgen = {} }, texts, ended) {
  for (const { text: added, logprob, alternatives = [] } of reviewgen.tokens ?? []) {
    const toAlternative = (each) => ({ text: each.text, probability: Math.exp(each.logprob), isEnd: each.is_end ?? false });
    yield { type: "token", index, text: added, bits: -logprob / Math.LN2, alternatives: alternatives.map(toAlternative) };
  }
  texts[index] += text;
  if (!reason || ended.has(index)) return;
  ended.add(index);
  yield { type: "end", index, reason, text: reviewgen.text ?? texts[index], copied: reviewgen.copied ?? [] };
}

/** Yields the data of each server-sent event of a response; comments, which keep a connection open, have none. */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { done, value = "" } = await reader.read();
      const events = (waiting + value).split(/\r?\n\r?\n/);
      waiting = events.pop();
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length > 0) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
      if (done) return;
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The connection to the server broke.");
  } finally {
    reader.cancel().catch(() => {}); // so that the server stops
  }
}
