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
function toModel({ id, reviewgen: { has_index: hasIndex = false, ...about } = {} }) {
  return { id, conditions: [], defaults: {}, facts: [], card: "", hasIndex, ...about };
}

async function* complete(send, { alternatives, ...request }, signal) {
  const isSet = ([, value]) => value !== null && value !== undefined;
  const fields = { ...Object.fromEntries(Object.entries(request).filter(isSet)), logprobs: alternatives, stream: true };
  const headers = { "Content-Type": "application/json" };
  const response = await send("v1/completions", { method: "POST", headers, body: JSON.stringify(fields), signal });
  let [ended, drawn] = [0, performance.now()];
  for await (const data of readEvents(response.body)) {
    if (data === "[DONE]") break;
    if (performance.now() - drawn > FRAME) {
      await new Promise((resolve) => setTimeout(resolve)); // what waits to be read must not keep the page from drawing
      drawn = performance.now();
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    for (const choice of chunk.choices) {
      yield* eventsOf(choice);
      if (choice.finish_reason) ended += 1;
    }
  }
  if (ended < request.n && !signal.aborted) throw new Error("The server stopped before the text was written.");
}

/** Yields the events of a choice of a chunk, with bits and probabilities instead of logarithms. */
function* eventsOf({ index, finish_reason: reason, reviewgen = {} }) {
  const toAlternative = ({ text, logprob, is_end: isEnd }) => ({ text, probability: Math.exp(logprob), isEnd });
  for (const { text, logprob, alternatives } of reviewgen.tokens ?? []) {
    yield { type: "token", index, text, bits: -logprob / Math.LN2, alternatives: alternatives.map(toAlternative) };
  }
  if (reason) yield { type: "end", index, reason, text: reviewgen.text, copied: reviewgen.copied };
}

/** Yields the data of each server-sent event, one line of a response; comments, which keep a connection open, have none. */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { done, value = "" } = await reader.read();
      const lines = (waiting + value).split("\n");
      waiting = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
      if (done) return;
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The connection to the server broke.");
  } finally {
    reader.cancel().catch(() => {}); // so that the server stops
  }
}
