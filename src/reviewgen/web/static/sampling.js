/**
 * Samples one token from logits: penalties, temperature, top-k, top-p, min-p, then one draw.
 *
 * The same steps in the same order as `reviewgen.compiled.sampling` and `sampling`, where the methods are explained, in 64-bit
 * numbers, so that equal logits and equal random numbers give equal tokens. Knows neither a model nor a tokenizer.
 */
import { follows } from "./spelling.js";

/** In place of a token: every token left is forbidden; every token has probability zero; NaN logits. */
export const [DEAD_END, NOTHING_LEFT, NOT_A_NUMBER] = [-2, -3, -4];

const MAX_REDRAWS = 8; // after which all tokens that may not follow are ruled out at once
const PROPOSALS = 3; // rejected before a token is sampled from all probabilities
const PLAIN_PROPOSALS = 8; // the same at temperature 1, where only an unknown word is rejected
const GOLDEN = 0x9e3779b9; // 2 ** 32 divided by the golden ratio: far apart for ids that are close

/** Returns the sampling settings of a call, from the settings of `GenerationConfig` and a tokenizer. */
export function samplingParams(config, { vocabSize, bosId, eosId }) {
  const { repetition_penalty: penalty, no_repeat_ngram_size: ngram, min_new_tokens: minNewTokens } = config;
  const { top_p: topP, min_p: minP } = config;
  const temperatures = [config.temperature].flat();
  const topK = config.top_k < vocabSize ? config.top_k : 0;
  const isGreedy = config.do_sample === false;
  const looksBack = penalty !== 1 || ngram > 0; // at the tokens before
  const isFiltered = looksBack || topK > 0 || topP < 1 || minP > 0 || isGreedy || minNewTokens > 0;
  const temperatureOf = (newTokens) => temperatures[newTokens % temperatures.length];
  const switches = { isGreedy, looksBack, isFiltered, isOneTemperature: temperatures.length === 1 };
  return { penalty, ngram, minNewTokens, topK, topP, minP, temperatureOf, ...switches, vocabSize, bosId, eosId };
}

/**
 * Samples the token after a text, whose ids so far a penalty looks at and of which some are new, with a random number in [0, 1).
 * Returns the token or a code, and the place after it. `spelling` has the words that the text may contain (null for any), and
 * `place` is its place among them.
 */
export function sampleToken(logits, text, newTokens, uniform, params, spelling, place) {
  const scores = applyPenalties(logits, text, newTokens, params);
  let largest = largestOf(scores);
  if (!Number.isFinite(largest)) return { token: largest === -Infinity ? NOTHING_LEFT : NOT_A_NUMBER, place };
  const temperature = params.temperatureOf(newTokens);
  const probs = toProbs(scores, largest, temperature, params);
  let token = drawToken(probs, uniform);
  for (let draws = 0; draws <= MAX_REDRAWS; draws++) {
    const after = follows(spelling, place, token, params.eosId);
    if (after !== null) return { token, place: after };
    probs[token] = 0;
    token = drawToken(probs, uniform);
    if (probs[token] === 0) break; // no token is left
  }
  for (let other = 0; other < params.vocabSize; other++) {
    if (follows(spelling, place, other, params.eosId) === null) scores[other] = -Infinity;
  }
  largest = largestOf(scores);
  if (largest === -Infinity) return { token: DEAD_END, place };
  const another = uniform < 0.75 ? uniform + 0.25 : uniform - 0.75; // exactly; its draw does not depend on that of `uniform`
  token = drawToken(toProbs(scores, largest, temperature, params), another);
  return { token, place: follows(spelling, place, token, params.eosId) };
}

/**
 * Samples as `sampleToken` does, which see, from a stepper that draws from its own distribution faster than it computes all of
 * it, with numbers of a random stream; returns null if no proposal is accepted. `width` is the number of its logits.
 *
 * A token is proposed at temperature 1 and accepted with probability p ** (1 / temperature - 1): exact rejection sampling (von
 * Neumann 1951). It is the order of draws of `reviewgen_ngram.stepping`, so equal seeds give equal texts.
 */
export function sampleByProposals(stepper, state, width, newTokens, random, params, spelling, place) {
  const { bosId, eosId, vocabSize } = params;
  const temperature = params.temperatureOf(newTokens);
  const isPlain = params.isOneTemperature && temperature === 1 && vocabSize >= width;
  const rounds = isPlain ? PLAIN_PROPOSALS : temperature <= 1 ? PROPOSALS : 0;
  for (let round = 0; round < rounds; round++) {
    const { token, probability } = stepper.propose(state, random()) ?? { token: vocabSize, probability: 0 }; // see there
    const chance = Math.fround(Math.fround(probability) ** Math.fround(1 / temperature - 1)); // in single precision, as in Python
    if (temperature !== 1 && !(random() < chance)) continue;
    if (token >= vocabSize || token === bosId) continue;
    const after = follows(spelling, place, token, eosId);
    if (after !== null) return { token, place: after };
  }
  return null;
}

/**
 * Returns the logits after penalties, as float64.
 *
 * The repetition penalty (Keskar et al. 2019) divides the positive logits of all tokens in the text by it and multiplies the
 * negative ones; no token completes an n-gram a second time (Paulus et al. 2017); eos is ruled out before `minNewTokens`.
 */
function applyPenalties(logits, text, newTokens, params) {
  const { penalty, ngram: size, vocabSize } = params;
  const scores = new Float64Array(logits);
  if (penalty !== 1) {
    for (const token of text) scores[token] = logits[token] < 0 ? logits[token] * penalty : logits[token] / penalty;
  }
  const end = text.slice(text.length - size + 1);
  for (let start = 0; size > 0 && start + size <= text.length; start++) {
    if (end.every((token, step) => text[start + step] === token)) scores[text[start + size - 1]] = -Infinity;
  }
  if (newTokens < params.minNewTokens) scores[params.eosId] = -Infinity;
  scores[params.bosId] = -Infinity;
  return scores.fill(-Infinity, vocabSize); // ids of conditions
}

/** Returns the largest score; NaN where one is NaN or plus infinity. */
function largestOf(scores) {
  let largest = -Infinity;
  for (let token = 0; token < scores.length; token++) {
    if (!(scores[token] < Infinity)) return NaN; // NaN compares false
    if (scores[token] > largest) largest = scores[token];
  }
  return largest;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** Returns unnormalised probabilities, the largest one 1, after temperature and filters; if greedy, of one token alone. */
function toProbs(scores, largest, temperature, { isGreedy, topK, topP, minP }) {
  const probs = new Float64Array(scores.length);
  if (isGreedy) return probs.with(scores.indexOf(largest), 1); // of equals, the smallest id
  for (let token = 0; token < scores.length; token++) probs[token] = exp((scores[token] - largest) / temperature);
  if (topK > 0 || topP < 1) filterTopKTopP(probs, topK || probs.length, topP);
  for (let token = 0; minP > 0 && token < probs.length; token++) if (probs[token] < minP) probs[token] = 0;
  return probs;
}

/** Keeps the topK most probable tokens, ties included, then the fewest of these with probability topP; of equals, smaller ids. */
function filterTopKTopP(probs, topK, topP) {
  const sorted = probs.slice().sort().reverse();
  const least = sorted[topK - 1];
  const total = topK < probs.length ? sum(sorted.subarray(0, sorted.lastIndexOf(least) + 1)) : sum(probs);
  let [kept, before] = [0, 0];
  while (kept < sorted.length && before < topP * total && sorted[kept] >= least) before += sorted[kept++];
  const cut = sorted[kept - 1];
  let equals = kept - sorted.indexOf(cut);
  for (let token = 0; token < probs.length; token++) {
    if (probs[token] < cut || (probs[token] === cut && equals-- <= 0)) probs[token] = 0;
  }
}

/** Returns a token by its unnormalised probability: by an exponential race, in which the next best wins if one is ruled out. */
function drawToken(probs, uniform) {
  const high = Math.floor(uniform * 2 ** 32);
  const low = (uniform * 2 ** 32 - high) * 2 ** 32;
  const first = mix((high + low) | 0, low | 0) | 0;
  const second = mix((low + GOLDEN) | 0, first) | 0;
  let [winner, prob, time] = [0, 0, Infinity]; // time: that of arrival, times the probability
  for (let token = 0; token < probs.length; token++) {
    const own = probs[token];
    if (own <= 0) continue;
    const bits = mix((first + Math.imul(token, GOLDEN)) | 0, second);
    if (own * time <= prob * (bits * 2 ** -32)) continue; // -log(1 - x) >= x, so it cannot be the first to arrive
    const share = (bits + (mix(bits | 0, first) >>> 11) * 2 ** -21) * 2 ** -32; // in [0, 1), of 53 bits
    const ownTime = -Math.log1p(-share);
    if (own * time > prob * ownTime) [winner, prob, time] = [token, own, ownTime];
  }
  return winner;
}

/** Returns a hash, of 32 bits, of two whole numbers of 32 bits; constants by Wellons 2018 ("lowbias32"). */
function mix(x, key) {
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15) ^ key, 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
}

const STEPS = 128;
const POWERS = Float64Array.from({ length: STEPS }, (_, step) => 2 ** (step / STEPS));
const HALVES = Float64Array.from({ length: 1023 }, (_, k) => 2 ** -k);

/**
 * Returns e to the power of a number of at most 0, within about 1e-13 of it, in less than half the time of `Math.exp`:
 * 2 ** -k * 2 ** (i / 128) * exp(r) with a small r (Tang 1989, "Table-driven implementation of the exponential function").
 */
export function exp(x) {
  if (!(x > -708)) return Math.exp(x); // below, a result has fewer bits
  const count = (x * (STEPS / Math.LN2) - 0.5) | 0;
  const r = x - count * (Math.LN2 / STEPS);
  const step = count & (STEPS - 1);
  return POWERS[step] * HALVES[(step - count) >> 7] * (1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24)))));
}
