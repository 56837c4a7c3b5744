/**
 * Automata of words that a text must or must not contain, and of choices that it must be one of: built over bytes, then stored over
 * tokens. And the look-ahead: how probable it is that a text will still contain a word. All of it as in `reviewgen.formats`, where
 * it is explained.
 */

/** States: no text may be in the first one; in the second the rule holds whatever follows; in the third a text begins. */
export const [DEAD, HOLDS, FIRST] = [0, 1, 2];

const HALF = 256; // symbols from here on are halves of a byte
const SYMBOLS = HALF + 16;
/** More tokens than any text has. */
export const FAR = 2 ** 20;
const MIN_REST = 1e-4; // of the probability of a token that has known followers

const { fround } = Math; // numbers of 32 bits, as in Python

const encode = (text) => Array.from(new TextEncoder().encode(text));

/**
 * An automaton over tokens, whose symbols are given. `step(state)` returns the function from a symbol to the state after it: DEAD,
 * HOLDS or a string. `next[state][token]` is the number of the state after a token, `distance[state]` the minimum number of
 * tokens until the text may end.
 */
class Automaton {
  constructor(tokens, eosId, first, step, mayEnd) {
    const numbers = new Map([[DEAD, DEAD], [HOLDS, HOLDS], [first, FIRST]]);
    const states = [first];
    const rows = [DEAD, HOLDS].map((state) => Array(SYMBOLS).fill(state));
    for (const state of states) { // grows
      const after = Array.from({ length: SYMBOLS }, (_, symbol) => symbol).map(step(state));
      for (const each of after) if (!numbers.has(each)) numbers.set(each, states.push(each) + 1);
      rows.push(after.map((each) => numbers.get(each)));
    }
    const isEnd = [false, true, ...states.map(mayEnd)];
    this.follow = (symbols, state) => symbols.reduce((at, symbol) => rows[at][symbol], state);
    this.next = rows.map((_, state) => {
      const after = Int32Array.from(tokens, (symbols) => (symbols.length > 0 ? this.follow(symbols, state) : DEAD));
      after[eosId] = isEnd[state] ? HOLDS : DEAD;
      return after;
    });
    this.distance = isEnd.map((is) => (is ? 0 : FAR));
    for (let isShorter = true; isShorter; ) {
      const before = this.distance.slice();
      for (let state = rows.length - 1; state > DEAD; state--) {
        for (const after of this.next[state]) this.distance[state] = Math.min(this.distance[state], 1 + this.distance[after]);
      }
      isShorter = this.distance.some((distance, state) => distance < before[state]);
    }
  }

  /** Returns the state after a text. */
  stateOf(text) {
    return this.follow(encode(text), FIRST);
  }

  /** Returns whether a text may end as it is. */
  accepts(text) {
    return this.distance[this.stateOf(text)] === 0;
  }
}

/** Returns the automaton of the texts that contain a word or phrase. */
export function includeWord(word, tokens, eosId) {
  const isMatched = (state) => {
    const { isComplete, half } = JSON.parse(state);
    return isComplete && half < 0;
  };
  return new Automaton(tokens, eosId, wordState(), wordStep([word], HOLDS), isMatched);
}

/** Returns the automaton of the texts that contain none of some words. */
export const excludeWords = (words, tokens, eosId) =>
  new Automaton(tokens, eosId, wordState(), wordStep(words, DEAD), (state) => !JSON.parse(state).isComplete);

/** Returns the automaton of some texts. */
export function chooseText(texts, tokens, eosId) {
  const encoded = texts.map((text) => String.fromCharCode(...encode(text)));
  const beginnings = new Set(encoded.flatMap((text) => Array.from(text, (_, place) => text.slice(0, place + 1))));
  const step = (state) => (symbol) => {
    const after = state + String.fromCharCode(symbol);
    return symbol < HALF && beginnings.has(after) ? after : DEAD;
  };
  return new Automaton(tokens, eosId, "", step, (state) => encoded.includes(state));
}

/**
 * Returns the state of the automaton of words: how far each spelling that may have begun is matched, whether one has just been
 * matched (if no letter follows), whether none can begin here (since a letter precedes), and the half of a byte that precedes, or -1.
 */
const wordState = (matches = [], isComplete = false, isInside = false, half = -1) =>
  JSON.stringify({ matches, isComplete, isInside, half });

/** Returns the step of the automaton of words; `end` is the state after a whole word. */
function wordStep(words, end) {
  const spellings = words.flatMap(([first, ...rest]) => {
    const firsts = new Set([first.toLowerCase(), first.toUpperCase()]);
    return Array.from(firsts, (each) => encode(each + rest.join("")));
  });
  const isStrict = end === HOLDS; // a byte above 127 beside a word counts as a letter
  return (state) => {
    const { matches, isComplete, isInside, half } = JSON.parse(state);
    return (symbol) => {
      if (half >= 0) { // a byte in two halves is not a part of a word
        if (symbol < HALF) return DEAD;
        const byte = 16 * half + symbol - HALF;
        const isInWord = byte >= 128 ? isStrict : isWordByte(byte);
        return isComplete && !isInWord ? end : wordState([], false, isInWord);
      }
      if (symbol >= HALF) return isComplete && !isStrict ? end : wordState([], isComplete, false, symbol - HALF);
      const isLetter = symbol >= 128 ? isStrict : isWordByte(symbol);
      if (isComplete && !isLetter) return end;
      const longer = spellings.flatMap((spelling, number) => {
        const lengths = matches.filter(([other]) => other === number).map(([, length]) => length);
        if (!isWordByte(spelling[0]) || !isInside) lengths.push(0);
        return lengths.filter((length) => spelling[length] === symbol).map((length) => [number, length + 1]);
      });
      const isWhole = ([number, length]) => length === spellings[number].length;
      const whole = longer.filter(isWhole);
      if (whole.some(([number]) => !isWordByte(spellings[number].at(-1)))) return end;
      return wordState(longer.filter((match) => !isWhole(match)), whole.length > 0, isLetter);
    };
  };
}

/** Returns whether a byte is an ASCII letter, digit or underscore, or belongs to another character. */
const isWordByte = (byte) => byte >= 128 || /\w/.test(String.fromCharCode(byte));

/** Returns the bigrams of a text that is sampled at a temperature, with the probability of each token's other followers together. */
export function temper({ starts, followers, probs, unigrams }, temperature) {
  const power = fround(1 / temperature);
  const size = unigrams.length;
  const tempered = { starts, followers, probs: probs.map((prob) => prob ** power), unigrams: unigrams.map((prob) => prob ** power) };
  const sum = fround(tempered.unigrams.reduce((total, prob) => total + prob, 0));
  const sumOf = (numbers, token) => numbers.subarray(starts[token], starts[token + 1]).reduce((total, prob) => total + prob, 0);
  const restOf = (numbers, token) => fround(Math.max(1 - sumOf(numbers, token), MIN_REST));
  for (let token = 0; token < size; token++) {
    const total = sumOf(tempered.probs, token) + fround(fround(restOf(probs, token) ** power) * sum);
    for (let place = starts[token]; place < starts[token + 1]; place++) tempered.probs[place] /= total;
  }
  tempered.unigrams = tempered.unigrams.map((prob) => prob / sum);
  return { ...tempered, rest: Float32Array.from(unigrams, (_, token) => restOf(tempered.probs, token)) };
}

/** The look-ahead of an automaton: the probability that it holds after some more tokens, by the backward algorithm. */
export class LookAhead {
  constructor({ next, distance }, bigrams, horizon) {
    const [states, lasts] = [[DEAD, HOLDS], [0, 0]]; // the pairs of a state and of the last token that a text can be in
    const numbers = next.map(({ length }) => new Int32Array(length));
    this.after = next.map((row) => row.map((state, token) => {
      if (state < FIRST) return state;
      if (numbers[state][token] === 0) [numbers[state][token]] = [states.push(state) - 1, lasts.push(token)];
      return numbers[state][token];
    }));
    this.values = [Float32Array.from(states, (state) => Number(distance[state] === 0))];
    while (this.values.length <= horizon) this.values.push(this.stepBack(states, lasts, bigrams, this.values.at(-1)));
    this.weights = new Map(); // by state and number of tokens left
  }

  /** Returns for each pair the probability with one more token, from `before`, those without it. */
  stepBack(states, lasts, { starts, followers, probs, rest, unigrams }, before) {
    const means = this.after.map((after) => {
      let mean = 0;
      for (let token = 0; token < unigrams.length; token++) mean += fround(unigrams[token] * before[after[token]]);
      return mean;
    });
    const values = Float32Array.of(0, 1, ...Array(states.length - FIRST));
    for (let pair = FIRST; pair < values.length; pair++) {
      const [after, last] = [this.after[states[pair]], lasts[pair]];
      let value = rest[last] * means[states[pair]];
      for (let place = starts[last]; place < starts[last + 1]; place++) value += fround(probs[place] * before[after[followers[place]]]);
      values[pair] = value;
    }
    return values;
  }

  /**
   * Returns, for each next token, by how much (in nats) it raises the log probability that the rule holds `left` tokens later, this
   * one included; zero for a token that changes nothing.
   */
  weigh(state, left) {
    const key = `${state} ${left}`;
    if (!this.weights.has(key)) {
      const last = this.values[Math.min(left, this.values.length - 1) - 1];
      const values = Float32Array.from(this.after[state], (pair) => last[pair]);
      const sorted = values.slice().sort();
      const middle = sorted.length >> 1;
      const median = sorted.length % 2 ? sorted[middle] : fround(sorted[middle - 1] + sorted[middle]) / 2;
      const usual = median || sorted.at(-1) || 1;
      this.weights.set(key, values.map((value) => Math.log(fround(value / usual))));
    }
    return this.weights.get(key);
  }
}
