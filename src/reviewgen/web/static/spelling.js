/**
 * Whether a token may follow a text: it must keep the text valid UTF-8, made of known words and known characters only.
 *
 * The same automaton over bytes as `reviewgen.compiled.spelling`. A place in it is [word, separator, half]: the node of the word
 * that the text ends in, the node inside a character between words (or 0), and the higher half of a byte (or -1).
 * `nodes[n]` is twice the number of bytes that may follow node n, plus one if a word or separator may end there; behind it, for
 * each of these bytes, is 256 times the node that it leads to, plus the byte. Node 0 is where no text can be.
 */

const HALF = 256; // symbols from here on are halves of a byte
const ANYWHERE = -1; // the word node of a text that any token may follow
const NOWHERE = [0, 0, -1];

/** Returns the place of a text that any token may follow. */
export function noPlace() {
  return [ANYWHERE, ANYWHERE, ANYWHERE];
}

/** Returns the place of an empty text. */
export function startOfText(spelling) {
  return [spelling.words, 0, -1];
}

/**
 * Returns the automaton that lets a token only continue or end a known word; without a lexicon, any valid UTF-8.
 * @param {(id: number) => ArrayLike<number>} tokenBytes The bytes of a token; 256 + n is half a byte.
 * @param {number} vocabSize
 * @param {{words: {nodes: Uint32Array, root: number}, separators: {nodes: Uint32Array, root: number}} | null} lexicon
 */
export function createSpelling(tokenBytes, vocabSize, lexicon) {
  const valid = utf8Automaton();
  const { nodes, roots } = join(lexicon ? [valid, lexicon.words, lexicon.separators] : [valid]);
  const [anything, words, separators] = lexicon ? roots : [roots[0], roots[0], 0];
  const first = [anything, words, separators].map((root) => edgeTable(nodes, root));
  const tokens = Array.from({ length: vocabSize }, (_, id) => Array.from(tokenBytes(id)));
  return { nodes, anything, known: valid.nodes.length, words, separators, first, tokens, ...sortTokens(tokens) };
}

/** Returns whether every token is whole characters, so that no sequence of tokens can be invalid UTF-8. */
export function areWhole(tokenBytes, vocabSize) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (let id = 0; id < vocabSize; id++) {
    const bytes = Array.from(tokenBytes(id));
    if (bytes.some((symbol) => symbol >= HALF)) return false;
    try {
      decoder.decode(Uint8Array.from(bytes));
    } catch {
      return false;
    }
  }
  return true;
}

/** Returns the place after a token, or null if it may not follow. */
export function follows(spelling, place, token, eos) {
  if (place[0] === ANYWHERE) return place;
  if (token === eos) return isEnd(spelling, place[0]) && place[2] < 0 ? place : null;
  return followKnown(spelling, place, token);
}

/** Returns the place after tokens of a text, known or not. */
export function followAll(spelling, place, tokens) {
  for (const token of tokens) place = followKnown(spelling, place, token) ?? followUnknown(spelling, place, token);
  return place;
}

/**
 * Sets the score of every token that may not follow to `lowest`.
 *
 * The tokens are taken in the order of their bytes, so that each beginning that several have in common is followed once.
 */
export function ruleOutMisspelled(spelling, place, eos, scores, lowest) {
  if (place[0] === ANYWHERE) return;
  const stack = [place]; // the place after each byte of the token
  spelling.order.forEach((token, number) => {
    const symbols = spelling.tokens[token];
    const common = spelling.common[number];
    if (common < stack.length) {
      stack.length = common + 1;
      while (stack.length <= symbols.length) {
        const next = followSymbol(spelling, stack[stack.length - 1], symbols[stack.length - 1]);
        if (next[0] === 0 && next[1] === 0) break;
        stack.push(next);
      }
    }
    if (stack.length <= symbols.length) scores[token] = lowest;
  });
  if (!isEnd(spelling, place[0]) || place[2] >= 0) scores[eos] = lowest;
}

function followKnown(spelling, place, token) {
  for (const symbol of spelling.tokens[token]) {
    place = followSymbol(spelling, place, symbol);
    if (place[0] === 0 && place[1] === 0) return null;
  }
  return place[0] === 0 && place[1] === 0 ? null : place;
}

/** Returns the place after a byte or half a byte. */
function followSymbol(spelling, [word, separator, half], symbol) {
  if (symbol < HALF) return half >= 0 ? NOWHERE : [...followByte(spelling, word, separator, symbol), half];
  if (half >= 0) return [...followByte(spelling, word, separator, symbol + 16 * half - HALF), -1];
  return hasByte(spelling, word, separator, symbol - HALF) ? [word, separator, symbol - HALF] : NOWHERE;
}

/** Returns the place after a token as `followKnown` does, where a word that is not known may be anything. */
function followUnknown(spelling, [word, separator, half], token) {
  for (let symbol of spelling.tokens[token]) {
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

function isEnd(spelling, node) {
  return (spelling.nodes[node] & 1) !== 0;
}

/** Returns whether a byte with this first half may follow. */
function hasByte(spelling, word, separator, half) {
  for (let byte = 16 * half; byte < 16 * half + 16; byte++) {
    if (followByte(spelling, word, separator, byte).some((node) => node !== 0)) return true;
  }
  return false;
}

/** Returns the automaton of all valid UTF-8 (Unicode 16, table 3-7). */
function utf8Automaton() {
  const [whole, one, two, three, afterE0, afterEd, afterF0, afterF4] = [1, 2, 3, 4, 5, 6, 7, 8];
  const ranges = [
    [],
    [
      [0x00, 0x7f, whole], [0xc2, 0xdf, one], [0xe0, 0xe0, afterE0], [0xe1, 0xec, two], [0xed, 0xed, afterEd],
      [0xee, 0xef, two], [0xf0, 0xf0, afterF0], [0xf1, 0xf3, three], [0xf4, 0xf4, afterF4],
    ],
    [[0x80, 0xbf, whole]],
    [[0x80, 0xbf, one]],
    [[0x80, 0xbf, two]],
    [[0xa0, 0xbf, one]],
    [[0x80, 0x9f, one]],
    [[0x90, 0xbf, two]],
    [[0x80, 0x8f, two]],
  ];
  const edges = ranges.map((node) => node.flatMap(([low, high, target]) => range(low, high).map((byte) => [byte, target])));
  const places = [0];
  for (const node of edges) places.push(places[places.length - 1] + 1 + node.length);
  const nodes = edges.flatMap((node, number) => [
    2 * node.length + Number(number === whole),
    ...node.map(([byte, target]) => 256 * places[target] + byte),
  ]);
  return { nodes: Uint32Array.from(nodes), root: places[whole] };
}

/** Returns the nodes of several automata in one array, and the root of each. */
function join(automata) {
  const nodes = new Uint32Array(automata.reduce((total, one) => total + one.nodes.length, 0));
  const roots = [];
  let start = 0;
  for (const one of automata) {
    for (let place = 0; place < one.nodes.length; ) {
      const end = place + 1 + (one.nodes[place] >>> 1);
      nodes[start + place] = one.nodes[place++];
      for (; place < end; place++) nodes[start + place] = one.nodes[place] + 256 * start;
    }
    roots.push(one.root + start);
    start += one.nodes.length;
  }
  return { nodes, roots };
}

/** Returns the node after each byte from a node. */
function edgeTable(nodes, root) {
  const table = new Int32Array(256);
  for (let edge = root + 1; edge < root + 1 + (nodes[root] >>> 1); edge++) table[nodes[edge] & 255] = nodes[edge] >>> 8;
  return table;
}

/** Returns the tokens sorted by their bytes, and how many bytes each has in common with the one before. */
function sortTokens(tokens) {
  const order = tokens.map((_, id) => id).sort((a, b) => compare(tokens[a], tokens[b]) || a - b);
  const common = order.map((token, number) => (number === 0 ? 0 : commonLength(tokens[order[number - 1]], tokens[token])));
  return { order, common };
}

function compare(one, other) {
  const length = commonLength(one, other);
  if (length === one.length || length === other.length) return one.length - other.length;
  return one[length] - other[length];
}

function commonLength(one, other) {
  let length = 0;
  while (length < one.length && length < other.length && one[length] === other[length]) length++;
  return length;
}

function range(low, high) {
  return Array.from({ length: high - low + 1 }, (_, step) => low + step);
}
