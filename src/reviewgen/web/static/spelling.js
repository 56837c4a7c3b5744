/**
 * Whether a token may follow a text: it must keep the text valid UTF-8, made of known words and known characters only.
 *
 * The automaton over bytes of `reviewgen.compiled.spelling`. A place in it is [word, separator, half]: the node of the word that
 * the text ends in, the node inside a character between words (or 0), and the higher half of a byte (or -1). Node 0 is where no
 * text can be. `nodes[n]` is twice the number of bytes that may follow node n, plus one if a word or separator may end there;
 * behind it, for each of these bytes, is 256 times the node that it leads to, plus the byte.
 */

const HALF = 256; // symbols from here on are halves of a byte
const ANYWHERE = -1; // the word node of a text that any token may follow
const NOWHERE = [0, 0, -1];
const isNowhere = (place) => place[0] === 0 && place[1] === 0;
const isEnd = (spelling, node) => (spelling.nodes[node] & 1) !== 0;

const WORDS = /[\p{L}\p{M}]+(?:['’][\p{L}\p{M}]+)*/gu;

/** Returns the words of a text. */
export const wordsOf = (text) => text.match(WORDS) ?? [];

/** The place of a text that any token may follow. */
export const ANY_PLACE = [ANYWHERE, ANYWHERE, ANYWHERE];

/**
 * Returns a function that returns the automaton for a setting of `words`: "known" lets a token only continue or end a known word,
 * or one of a text that is given; "any" only go on with valid UTF-8, and is null if each token does. `nodes` holds the automata of
 * valid UTF-8 and, of a model with a lexicon, from `known` on those of words and separators.
 */
export function createSpellings({ vocabSize, tokenBytes }, nodes, roots, known) {
  const [anything, words] = roots;
  const tokens = Array.from({ length: vocabSize }, (_, id) => Array.from(tokenBytes(id)));
  const shared = { nodes, anything, known, tokens };
  const tables = [0, ...roots].map((root) => edgeTable(nodes, root));
  const valid = { ...shared, words: anything, start: [anything, 0, -1], first: [tables[1], tables[1], tables[0]] };
  const lexicon = { ...shared, words, start: [words, 0, -1], first: tables.slice(1) };
  return (setting, given = "") => {
    if (setting === "any") return tokens.every(isWhole) ? null : valid;
    if (roots.length > 1) return addWords(lexicon, wordsOf(given));
    throw new Error("This model has no list of known words, which words=known needs. Set words=any.");
  };
}

/** Returns an automaton that knows some more words; the nodes along them are copies behind the others. */
function addWords(spelling, words) {
  const [encoder, added] = [new TextEncoder(), []];
  const extend = (node, strings) => {
    const edges = edgeTable(spelling.nodes, node);
    for (const byte of new Set(strings.flatMap((string) => string.slice(0, 1)))) {
      const longer = strings.filter(([first]) => first === byte).map((string) => string.slice(1));
      edges[byte] = extend(edges[byte], longer);
    }
    const isLast = isEnd(spelling, node) || strings.some(({ length }) => length === 0);
    const words = Array.from(edges, (target, byte) => 256 * target + byte).filter((word) => word > 255);
    return spelling.nodes.length + added.push(2 * words.length + isLast, ...words) - words.length - 1;
  };
  if (words.length === 0) return spelling;
  const strings = words.flatMap((word) => ["", "'", "’"].map((quote) => Array.from(encoder.encode(word + quote))));
  const root = extend(spelling.words, strings);
  const nodes = Uint32Array.from([...spelling.nodes, ...added]);
  return { ...spelling, nodes, words: root, start: [root, 0, -1], first: spelling.first.with(1, edgeTable(nodes, root)) };
}

/** Returns whether a word is known, as it is written or in lower case. */
export function isKnown(spelling, word) {
  const lastOf = (text) => new TextEncoder().encode(text).reduce((node, byte) => child(spelling, node, byte), spelling.words);
  return [word, word.toLowerCase()].some((text) => isEnd(spelling, lastOf(text)));
}

/** Returns the place after a token; null if it may not follow. */
export function follows(spelling, place, token, eos) {
  if (place[0] === ANYWHERE) return place;
  if (token === eos) return isEnd(spelling, place[0]) && place[2] < 0 ? place : null;
  for (const symbol of spelling.tokens[token]) {
    place = followSymbol(spelling, place, symbol);
    if (isNowhere(place)) return null;
  }
  return place;
}

/** Returns the place after a byte or half a byte. */
function followSymbol(spelling, [word, separator, half], symbol) {
  if (symbol < HALF) return half >= 0 ? NOWHERE : [...followByte(spelling, word, separator, symbol), half];
  if (half >= 0) return [...followByte(spelling, word, separator, symbol + 16 * half - HALF), -1];
  const bytes = Array.from({ length: 16 }, (_, low) => 16 * (symbol - HALF) + low);
  const isPossible = bytes.some((byte) => followByte(spelling, word, separator, byte).some((node) => node !== 0));
  return isPossible ? [word, separator, symbol - HALF] : NOWHERE;
}

/** Returns the place after tokens of a text, in which a word that is not known may be anything. */
export function followAll(spelling, place, tokens) {
  if (place[0] === ANYWHERE) return place;
  let [word, separator, half] = place;
  for (let symbol of tokens.flatMap((token) => spelling.tokens[token])) {
    if (symbol >= HALF && half < 0) {
      half = symbol - HALF;
      continue;
    }
    if (symbol >= HALF) symbol += 16 * half - HALF;
    half = -1;
    const before = word;
    [word, separator] = followByte(spelling, word, separator, symbol);
    if (word === 0 && separator === 0) {
      word = child(spelling, before < spelling.known ? before : spelling.anything, symbol) || spelling.anything;
    }
  }
  return [word, separator, half];
}

/** Returns the nodes after a byte; a separator that is complete begins a new word. */
function followByte(spelling, word, separator, byte) {
  let nextWord = child(spelling, word, byte);
  let nextSeparator = 0;
  if (separator !== 0) nextSeparator = child(spelling, separator, byte);
  else if (isEnd(spelling, word)) nextSeparator = spelling.first[2][byte];
  if (nextSeparator !== 0 && isEnd(spelling, nextSeparator)) {
    nextSeparator = 0;
    if (nextWord < spelling.known) nextWord = spelling.words; // none, or any text
  }
  return [nextWord, nextSeparator];
}

/** Returns the node after a byte; 0 if the byte may not follow. */
function child(spelling, node, byte) {
  if (node === spelling.words) return spelling.first[1][byte];
  if (node === spelling.anything) return spelling.first[0][byte];
  const { nodes } = spelling;
  for (let edge = node + 1; edge < node + 1 + (nodes[node] >>> 1); edge++) {
    if ((nodes[edge] & 255) === byte) return nodes[edge] >>> 8;
  }
  return 0;
}

/** Returns the node after each byte from a node, which has many. */
function edgeTable(nodes, root) {
  const table = new Int32Array(256);
  for (let edge = root + 1; edge < root + 1 + (nodes[root] >>> 1); edge++) table[nodes[edge] & 255] = nodes[edge] >>> 8;
  return table;
}

/** Returns whether the bytes of a token are whole characters. If all are, no sequence of tokens can be invalid UTF-8. */
function isWhole(symbols) {
  return symbols.every((symbol) => symbol < HALF) && !new TextDecoder().decode(Uint8Array.from(symbols)).includes("\ufffd");
}
