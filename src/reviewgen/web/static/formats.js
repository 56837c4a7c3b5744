/**
 * Formats: words that a text must or must not contain, and choices that it must be one of, as a mask over the next token, and as
 * weights that steer towards a word. The same steps as in `reviewgen.formats.cursor`. Knows a model only by its tokens and bigrams.
 */
import { DEAD, FAR, FIRST, HOLDS, LookAhead, chooseText, excludeWords, includeWord, temper } from "./automata.js";
import { isKnown, wordsOf } from "./spelling.js";

const MAX_CHOICES = 2000; // characters of all choices
const HORIZON = 60; // words; an included word is in the text after at most about this many
const CHARACTERS = 5; // of a word
const EXCLUDED_HORIZON = 3; // tokens; keeps a text from the beginning of an excluded word
const LEEWAY = 8; // tokens between the deadline of the words and the fewest tokens that they need

const { fround } = Math; // numbers of 32 bits, as in Python
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const namesOf = (rules) => rules.map(({ name }) => name).join(" and ");

function check(isRight, sentence) {
  if (!isRight) throw new Error(sentence);
}

/**
 * Returns a function that returns what the texts of a request must look like, by their prompt and its tokens, without the rest
 * that they must spell next; null if they may be any. Throws an Error if no text fits.
 */
export function createFormats({ tokenizer, bigrams }, spelling, config) {
  const { include, exclude, choices, max_new_tokens: limit } = config;
  if (include.length + exclude.length + choices.length === 0) return null;
  const { vocabSize, eosId } = tokenizer;
  const tokens = Array.from({ length: vocabSize }, (_, id) => Array.from(tokenizer.tokenBytes(id)));
  const lengths = tokens.map(({ length }) => length).sort((one, other) => one - other);
  const horizon = Math.min(HORIZON * (lengths[vocabSize >> 1] > 1 ? 1 : CHARACTERS), limit);
  const temperatures = [config.temperature].flat();
  const tempered = temper(bigrams, sum(temperatures) / temperatures.length);
  const toRule = (name, automaton, reach) => ({ name, automaton, lookAhead: new LookAhead(automaton, tempered, reach) });
  const others = exclude.length > 0 ? [toRule(`exclude=“${exclude.join(", ")}”`, excludeWords(exclude, tokens, eosId), EXCLUDED_HORIZON)] : [];
  const words = include.map((word) => {
    const unknown = spelling === null ? undefined : wordsOf(word).find((each) => !isKnown(spelling, each));
    check(unknown === undefined, `include has “${unknown}”, which is not a known word of this model: leave it out.`);
    const isPossible = others.every(({ automaton }) => automaton.accepts(word));
    check(isPossible, `include has “${word}”, and exclude has a word of it: leave out one of them.`);
    const automaton = includeWord(word, tokens, eosId);
    checkSpelled("include", word, automaton.distance[FIRST] < FAR);
    return toRule(`include=“${word}”`, automaton, horizon);
  });
  const rules = [...words, ...others];
  let format; // that of the prompt, the same for all texts
  return (prompt, ids, rest) => {
    if (format) return format;
    const broken = rules.find(({ automaton }) => automaton.stateOf(prompt) === DEAD);
    check(broken === undefined, `The beginning of the text does not fit ${broken?.name}: change one of them.`);
    const read = prompt.slice(0, prompt.length - rest.length);
    const started = rules.map((rule) => ({ ...rule, first: rule.automaton.stateOf(read) }));
    if (choices.length > 0) started.push(choiceOf(choices, rules, prompt, rest, tokens, eosId));
    format = new Format(started, ids.length, horizon, limit);
    if (rest === "") format.checkLimit(ids);
    return format;
  };
}

const checkSpelled = (name, text, isSpelled) =>
  check(isSpelled, `${name} has “${text}”, which has characters that this model does not know: leave them out.`);

/** Returns the rule that one of some choices follows the prompt, without those that other rules forbid. */
function choiceOf(choices, rules, prompt, rest, tokens, eosId) {
  const count = sum(choices.map(({ length }) => length));
  check(count <= MAX_CHOICES, `The choices may have ${MAX_CHOICES} characters together; these have ${count}.`);
  const fitting = choices.filter((choice) => rules.every(({ automaton }) => automaton.accepts(prompt + choice)));
  check(fitting.length > 0, `None of the choices fits ${namesOf(rules)}: change them, or leave out one of the fields.`);
  const automaton = chooseText(fitting.map((choice) => rest + choice), tokens, eosId);
  const reached = new Set([FIRST]);
  for (const state of reached) for (const after of automaton.next[state]) reached.add(after); // grows
  for (const choice of fitting) checkSpelled("choices", choice, reached.has(automaton.stateOf(rest + choice)));
  return { name: "choices", automaton, first: FIRST };
}

/** The rules of the texts of a prompt, which has read the first tokens, as many as `start`. */
class Format {
  constructor(rules, start, horizon, limit) {
    Object.assign(this, { rules, start, horizon, limit });
  }

  /** Returns each rule with the state and the distance after some tokens. */
  read(ids) {
    return this.rules.map((rule) => {
      const { next, distance } = rule.automaton;
      const state = ids.slice(this.start).reduce((before, id) => next[before][id], rule.first);
      return { ...rule, state, distance: distance[state] };
    });
  }

  /** Returns whether a text of some tokens may end. */
  fits(ids) {
    return this.read(ids).every(({ distance }) => distance === 0);
  }

  /** Throws an Error if a text with the prompt's tokens cannot have the tokens that the rules need. */
  checkLimit(ids) {
    const open = this.read(ids).filter(({ distance }) => distance > 0);
    const needed = sum(open.map(({ distance }) => distance));
    const verb = open.length === 1 && open[0].name !== "choices" ? "needs" : "need";
    check(needed <= this.limit, `${namesOf(open)} ${verb} at least ${needed} tokens: raise the length, which is ${this.limit}.`);
  }

  /** Returns the scores of the next token of a text from its logits: without tokens that do not fit, the others weighed. */
  apply(logits, ids, newTokens, temperature) {
    const scores = new Float64Array(logits).fill(-Infinity, this.rules[0].automaton.next[0].length);
    const rules = this.read(ids);
    const left = this.limit - newTokens;
    const needed = sum(rules.map(({ distance }) => distance));
    const deadline = Math.min(left, Math.max(this.horizon - newTokens, needed + LEEWAY));
    for (const { automaton, state, lookAhead } of rules) {
      automaton.next[state].forEach((after, token) => after === DEAD && (scores[token] = -Infinity));
      if (state === HOLDS || !lookAhead) continue;
      lookAhead.weigh(state, deadline).forEach((weight, token) => (scores[token] += fround(fround(temperature) * weight)));
    }
    if (needed > 0 && left <= 2 * needed + LEEWAY) hurry(scores, left, rules);
    return scores;
  }
}

/** Rules out tokens after which too few are left for the rules; if all are, those after which the rules need more than after others. */
function hurry(scores, left, rules) {
  const after = scores.map((_, token) => sum(rules.map(({ automaton, state }) => automaton.distance[automaton.next[state][token]])));
  const least = after.filter((_, token) => scores[token] > -Infinity).reduce((one, other) => Math.min(one, other), Infinity);
  after.forEach((distance, token) => distance > Math.max(left - 1, least) && (scores[token] = -Infinity));
}
