/**
 * An engine without a model, in place of browser_engine.js: tokens depend on the seed, the number of the text and what stands before,
 * as those of a real one do. `packed[n].manifest` is what models() returns. A prompt may ask for trouble: see `complete`.
 */
const WORDS =
  " the| a| film| story| of| and| is| with| great| slow| but| quiet| dark|,|.| acting| was| never| more| than|.\n| good".split(
    "|",
  );

/** Returns a number in [0, 1) that depends on all of a text (FNV-1a, then mixed). */
function hash(text) {
  let value = 2166136261;
  for (const character of text) value = Math.imul(value ^ character.codePointAt(0), 16777619);
  value = Math.imul(value ^ (value >>> 15), 2246822519);
  value = Math.imul(value ^ (value >>> 13), 3266489917);
  return ((value ^ (value >>> 16)) >>> 0) / 2 ** 32;
}

/** Returns a step of a text: ten alternatives, and which one is drawn. */
function step(request, index, text) {
  const key = `${request.model}/${request.seed}/${index}/${request.temperature}/${JSON.stringify(request.conditions)}/${text}`;
  const start = Math.floor(hash(`${request.model}${text.slice(-12)}`) * WORDS.length);
  const alternatives = Array.from({ length: 10 }, (_, rank) => ({
    text: WORDS[(start + 5 * rank) % WORDS.length],
    probability: rank ? 0.4 / (rank + 1) ** 1.5 : 0.42,
    isEnd: false,
  }));
  if (request.prompt.includes("BLANK")) alternatives[8].text = "\u2028";
  alternatives[9] = { text: "", probability: 0.001, isEnd: true };
  const rank = Math.floor(9 * hash(key) ** 2.5);
  return { alternatives, drawn: alternatives[rank] };
}

async function* complete(request, signal) {
  globalThis.requests = [...(globalThis.requests ?? []), request]; // for tests to read
  if (request.prompt.includes("FAIL")) throw new Error("The engine has no memory left.");
  const texts = Array(request.n).fill(request.prompt.endsWith(" mov") ? `${request.prompt}ie` : request.prompt);
  if (request.prompt.endsWith(" mov")) yield* again(" mov");
  const pause = request.prompt.includes("SLOW") ? 20 : 0;
  for (let count = 0; count < request.max_tokens; count++) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (signal.aborted) return;
    if (request.prompt.includes("BACK") && count === 5) {
      texts[0] = texts[0].slice(0, request.prompt.length + 3); // in the middle of a token
      yield { type: "back", index: 0, text: texts[0] };
    }
    for (let index = 0; index < request.n; index++) {
      const { alternatives, drawn } = step(request, index, texts[index]);
      texts[index] += drawn.text;
      yield {
        type: "token",
        index,
        text: drawn.text,
        bits: -Math.log2(drawn.probability) * (1 + 2 * hash(texts[index])),
        alternatives,
        ...(request.prompt.includes("HEADS") && headsOf(count)),
      };
    }
  }
  for (let index = 0; index < request.n; index++) {
    const text = request.prompt.includes("CUT") ? texts[index].slice(0, -7) : texts[index];
    const reason = request.prompt.includes("STUCK") ? "stuck" : "length";
    yield { type: "end", index, reason, text, copied: copiedOf(request, text) };
  }
}

/** Returns what two heads read when the token at a place was predicted: the token before it, and the first one. */
function headsOf(place) {
  const before = [{ place: place - 1, text: "<b>", weight: 0.75 }];
  return { place, reads: [{ name: "layer 1, head 1", tokens: before }, { name: "layer 1, head 2", tokens: [{ place: 0, text: " a", weight: 1 }] }] };
}

/** Yields the tokens of a prompt whose end is sampled again: one that adds nothing, and one that adds "ie" to it. */
function* again(end) {
  const words = [`${end}ie`, `${end}`, " film", `${end}ement`];
  const alternatives = words.map((text, rank) => ({ text, probability: 0.5 / 2 ** rank, isEnd: false }));
  yield { type: "token", index: 0, text: "", bits: 30, alternatives };
  yield { type: "token", index: 0, text: "ie", bits: 1, alternatives };
}

/** Returns a copied span in the middle of a text, where there is an index. */
function copiedOf(request, text) {
  const start = request.prompt.length + 3;
  const isLong = text.length > start + 40;
  return request.model.includes("index") && isLong ? [{ start, end: start + 33, length: 33, source: "reviews.csv, row 12" }] : [];
}

export function createBrowserEngine(packed) {
  for (const { readBlob } of packed) if (!(readBlob() instanceof Uint8Array)) throw new Error("A blob is not bytes.");
  const models = packed.map((each) => each.manifest);
  if (models.some((model) => model.id === "broken"))
    return { models: () => Promise.reject(new Error("The model is damaged.")), complete };
  return { models: async () => models, complete };
}
