/**
 * Sampling by proposals, for a stepper that draws from its own distribution faster than it computes all of it (an n-gram).
 *
 * A token is proposed at temperature 1 and accepted with probability p ** (1 / temperature - 1): exact rejection sampling (von
 * Neumann 1951). It is the order of draws of `reviewgen_ngram.sampling`, so equal seeds give equal texts.
 */

import { drawToken } from "./drawing.js";
import { exp } from "./exponential.js";
import { DEAD_END, looksBack, sampleToken, temperatureOf } from "./sampling.js";
import { sum } from "./filters.js";
import { follows, ruleOutMisspelled } from "./spelling.js";

const PROPOSALS = 3; // rejected before a token is sampled from all probabilities
const MAX_MISSES = 8; // tokens of unknown words, after which one is sampled from all that are not

/** The random numbers that a token takes at most. */
export const MAX_NUMBERS = Math.max(2 * PROPOSALS, MAX_MISSES) + 1;

/** Returns whether tokens are sampled by proposals: the stepper can, and there are neither filters nor penalties. */
export function canPropose(stepper, params) {
  const hasFilter = params.topK > 0 || params.topP < 1 || params.minP > 0;
  return stepper.propose !== undefined && !(hasFilter || looksBack(params) || params.isGreedy || params.minNewTokens > 0);
}

/**
 * Samples the token after a text, as `sampleToken` does, which see, from the stepper with its state.
 * @param {number[]} uniform MAX_NUMBERS random numbers in [0, 1).
 * @returns {{token: number, used: number, place: number[]}} `used`: how many random numbers.
 */
export function sampleByProposals(stepper, state, logits, text, newTokens, uniform, params, spelling, place) {
  const temperature = temperatureOf(params, newTokens);
  if (params.temperatures.length === 1 && temperature === 1 && params.vocabSize >= logits.length) {
    return samplePlain(stepper, state, logits, uniform, params, spelling, place);
  }
  let used = 0;
  for (let round = 0; temperature <= 1 && round < PROPOSALS; round++) {
    const { token, probability } = stepper.propose(state, uniform[used]);
    used += temperature === 1 ? 1 : 2;
    if (temperature !== 1 && !(uniform[used - 1] < power(probability, 1 / temperature - 1))) continue;
    if (token >= params.vocabSize || token === params.bosId) continue;
    const after = spelling === null ? place : follows(spelling, place, token, params.eosId);
    if (after !== null) return { token, used, place: after };
  }
  const sampled = sampleToken(logits, text, newTokens, uniform[used], params, spelling, place);
  return { ...sampled, used: used + 1 };
}

/** The same at temperature 1, of a model without conditions. */
function samplePlain(stepper, state, logits, uniform, params, spelling, place) {
  for (let misses = 0; misses < MAX_MISSES; misses++) {
    const { token } = stepper.propose(state, uniform[misses]);
    const after = spelling === null ? place : follows(spelling, place, token, params.eosId);
    const isRefused = spelling !== null && (token === params.bosId || after === null);
    if (!isRefused) return { token, used: misses + 1, place: after };
  }
  const probs = Float64Array.from(logits, (logit) => exp(logit));
  probs[params.bosId] = 0;
  ruleOutMisspelled(spelling, place, params.eosId, probs, 0);
  if (!(sum(probs) > 0)) return { token: DEAD_END, used: MAX_MISSES + 1, place };
  const token = drawToken(probs, uniform[MAX_MISSES]);
  return { token, used: MAX_MISSES + 1, place: follows(spelling, place, token, params.eosId) };
}

/** Returns a power in single precision. */
function power(base, exponent) {
  return Math.fround(Math.fround(base) ** Math.fround(exponent));
}
