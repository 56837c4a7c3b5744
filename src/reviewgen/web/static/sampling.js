/**
 * Samples one token from logits: penalties, temperature, top-k, top-p, min-p, then one draw.
 *
 * The same steps in the same order as `reviewgen.compiled.sampling`, in 64-bit numbers, so that equal logits and equal random
 * numbers give equal tokens. Each setting means what it means in transformers. Knows neither a model nor a tokenizer.
 */

import { drawToken } from "./drawing.js";
import { exp } from "./exponential.js";
import { filterProbs } from "./filters.js";
import { follows, ruleOutMisspelled } from "./spelling.js";

/** In place of a token: a token was refused; every token left is forbidden; every token has probability zero; NaN logits. */
export const [NONE, DEAD_END, NOTHING_LEFT, NOT_A_NUMBER] = [-1, -2, -3, -4];

const MAX_REDRAWS = 8; // after which all tokens that may not follow are ruled out at once

/**
 * Returns the sampling settings of a call.
 * @param {object} config The generation settings, with the names of `GenerationConfig`.
 * @param {{vocabSize: number, bosId: number, eosId: number}} tokenizer
 */
export function samplingParams(config, tokenizer) {
  return {
    temperatures: [config.temperature].flat(),
    topK: config.top_k < tokenizer.vocabSize ? config.top_k : 0,
    topP: config.top_p,
    minP: config.min_p,
    repetitionPenalty: config.repetition_penalty,
    noRepeatNgramSize: config.no_repeat_ngram_size,
    minNewTokens: config.min_new_tokens,
    isGreedy: config.do_sample === false,
    eosId: tokenizer.eosId,
    bosId: tokenizer.bosId,
    vocabSize: tokenizer.vocabSize,
  };
}

/** Returns whether a token's probability depends on the tokens before it through a penalty. */
export function looksBack(params) {
  return params.repetitionPenalty !== 1 || params.noRepeatNgramSize > 0;
}

/** Returns the temperature of a new token. */
export function temperatureOf(params, newTokens) {
  return params.temperatures[newTokens % params.temperatures.length];
}

/**
 * Samples the token after a text.
 * @param {ArrayLike<number>} logits One for each id.
 * @param {number[]} text The ids so far, those before the text included.
 * @param {number} newTokens How many of them are new.
 * @param {number} uniform A random number in [0, 1).
 * @param {object} params As `samplingParams` returns them.
 * @param {object|null} spelling The words that the text may contain; null for any.
 * @param {number[]} place Its place among them.
 * @returns {{token: number, place: number[]}} The token or a code, and the place after it.
 */
export function sampleToken(logits, text, newTokens, uniform, params, spelling, place) {
  const scores = applyPenalties(logits, text, newTokens, params);
  let largest = largestScore(scores);
  if (!(largest > -Infinity && largest < Infinity)) {
    return { token: largest === -Infinity ? NOTHING_LEFT : NOT_A_NUMBER, place };
  }
  const temperature = temperatureOf(params, newTokens);
  let probs = weigh(scores, largest, temperature, params);
  let token = drawToken(probs, uniform);
  if (spelling !== null && follows(spelling, place, token, params.eosId) === null) {
    token = redraw(spelling, place, params.eosId, probs, token, uniform);
  }
  if (token === NONE) {
    ruleOutMisspelled(spelling, place, params.eosId, scores, -Infinity);
    largest = largestScore(scores);
    if (largest === -Infinity) return { token: DEAD_END, place };
    probs = weigh(scores, largest, temperature, params);
    token = drawToken(probs, uniform);
  }
  return { token, place: spelling === null ? place : follows(spelling, place, token, params.eosId) };
}

/**
 * Returns the logits after penalties, as float64.
 *
 * The repetition penalty (Keskar et al. 2019) divides the positive logits of all tokens in the text by it and multiplies the
 * negative ones; no token completes an n-gram a second time (Paulus et al. 2017); eos is ruled out before `minNewTokens`.
 */
function applyPenalties(logits, text, newTokens, params) {
  const scores = new Float64Array(logits);
  scores.fill(-Infinity, params.vocabSize); // ids of conditions
  const [penalty, ngram] = [params.repetitionPenalty, params.noRepeatNgramSize];
  if (penalty !== 1) {
    for (const token of text) { // from the logits, so that a token that occurs twice is not penalised twice
      if (token < params.vocabSize) scores[token] = logits[token] < 0 ? logits[token] * penalty : logits[token] / penalty;
    }
  }
  if (ngram > 0 && ngram <= text.length + 1) {
    for (let start = 0; start + ngram <= text.length; start++) {
      if (endsWithNgram(text, start, ngram) && text[start + ngram - 1] < params.vocabSize) scores[text[start + ngram - 1]] = -Infinity;
    }
  }
  if (newTokens < params.minNewTokens) scores[params.eosId] = -Infinity;
  scores[params.bosId] = -Infinity;
  return scores;
}

/** Returns whether the text ends with the n-gram's tokens at `start`, but for its last one. */
function endsWithNgram(text, start, ngram) {
  for (let step = 0; step < ngram - 1; step++) {
    if (text[start + step] !== text[text.length - ngram + 1 + step]) return false;
  }
  return true;
}

/** Returns the largest score; NaN where one is NaN or plus infinity. */
function largestScore(scores) {
  let largest = -Infinity;
  for (let token = 0; token < scores.length; token++) {
    if (!(scores[token] < Infinity)) return NaN; // NaN compares false
    if (scores[token] > largest) largest = scores[token];
  }
  return largest;
}

/** Returns unnormalised probabilities after temperature and filters, or if greedy, all of it for the most probable token. */
function weigh(scores, largest, temperature, params) {
  const probs = new Float64Array(scores.length);
  if (params.isGreedy) {
    probs[scores.indexOf(largest)] = 1; // of equals, the smallest id
    return probs;
  }
  for (let token = 0; token < scores.length; token++) probs[token] = exp((scores[token] - largest) / temperature);
  filterProbs(probs, params);
  return probs;
}

/**
 * Draws other tokens in place of one that may not follow a text, each only once, until one may.
 * @returns {number} The token, or NONE if a few others may not follow either.
 */
function redraw(spelling, place, eos, probs, refused, uniform) {
  for (let round = 0; round < MAX_REDRAWS; round++) {
    probs[refused] = 0;
    refused = drawToken(probs, uniform);
    if (probs[refused] === 0) break; // no token is left
    if (follows(spelling, place, refused, eos) !== null) return refused;
  }
  return NONE;
}
