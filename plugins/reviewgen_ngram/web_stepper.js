/**
 * The stepper of ngram in JavaScript: it queries the trie as `trie.py` does, and reads the same saved arrays.
 *
 * The state is the context of the text: the node of its longest suffix that is a context of the model. With fields, the state has
 * more parts: see `createFieldStepper`. Node 0 is the empty context. No node has it as a child, so 0 also means that a search found
 * no node. There are M nodes, the first I of them contexts, over V ids.
 */

const ROOM = 256; // the numbers here are the same as in `fields.py`
const ANYWHERE = 0.002;
const STAY = 0.95;
const MIN_LEFT = 0.01;
const TINY = 1e-9;

/**
 * Return the stepper of a model: `{initialState(), forward(ids, state)}`. The logits are log probabilities. If the smoothing is a
 * distribution and there are no fields, it also has `propose(state, number)`, which draws a token without all probabilities.
 */
export default function createStepper(name, config, tensors) {
  const trie = readTrie(config, tensors);
  if (config.field_ids) return createFieldStepper(config, trie);
  const isDistribution = config.smoothing !== "stupid-backoff";

  function forward(ids, state) {
    for (const id of ids) state = follow(trie, state, id);
    const row = computeProbabilities(trie, state);
    const total = isDistribution ? 1 : sum(row);
    return { logits: row.map((p) => Math.log(p / total)), state };
  }

  const draw = (state, number) => propose(trie, state, number);
  return { initialState: () => 0, forward, propose: isDistribution ? draw : undefined };
}

/**
 * Return the trie: the saved arrays, `first` (the first child of each context, then the end) and `heads` (the 1-gram node of each
 * id). A link leads to the n-gram without its first token: `links` has those of contexts, `ends` those of the last level, which are
 * searched if `ends` is missing. If there is a `book`, `probabilities` are codes, and `book` has the probability of each code.
 */
function readTrie(config, tensors) {
  const arrays = Object.fromEntries(Object.entries(tensors).map(([name, { data }]) => [name, data]));
  const starts = Array.from(arrays.starts, Number); // first node of each level; an int64 array may hold BigInts
  const heads = new Int32Array(config.vocab_size);
  for (let node = starts[1]; node < starts[2]; node++) heads[arrays.tokens[node]] = node;
  const first = new Int32Array(arrays.children.length + 1).fill(starts[2]);
  for (let context = 1; context < first.length - 1; context++) first[context + 1] = first[context] + arrays.children[context];
  return { ...arrays, heads, first };
}

/** Return the child of a context for a token; 0 if there is none. Children are sorted by token. */
function find({ tokens, first, heads }, context, token) {
  if (context === 0) return heads[token];
  let [low, high] = [first[context], first[context + 1]];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tokens[middle] < token) low = middle + 1;
    else high = middle;
  }
  return low < first[context + 1] && tokens[low] === token ? low : 0;
}

/** Return the context of a text after one more token, from the context before it. */
function follow(trie, context, token) {
  let child = find(trie, context, token);
  while (child === 0 && context !== 0) {
    context = trie.links[context];
    child = find(trie, context, token);
  }
  const contexts = trie.links.length;
  if (child < contexts) return child;
  if (trie.ends) return trie.ends[child - contexts];
  return context === 0 ? 0 : find(trie, trie.links[context], token);
}

/** Return the probability of a node's token after its parent. */
const probabilityOf = ({ probabilities, book }, node) => (book ? book[probabilities[node]] : probabilities[node]);

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** Return weight * p(id) of every id (V) after a context: its children overwrite the probabilities from the shorter context. */
function computeProbabilities(trie, context, weight = 1) {
  const { tokens, first, links, backoffs, root } = trie;
  if (context === 0) return new Float64Array(root).map((p) => weight * p);
  const row = computeProbabilities(trie, links[context], weight * backoffs[context]);
  for (let child = first[context]; child < first[context + 1]; child++) row[tokens[child]] = weight * probabilityOf(trie, child);
  return row;
}

/** Return the probability of a token after a context, times a weight. */
function probabilityAfter(trie, context, token, weight = 1) {
  if (context === 0) return weight * trie.root[token];
  const child = find(trie, context, token);
  if (child !== 0) return weight * probabilityOf(trie, child);
  return probabilityAfter(trie, trie.links[context], token, weight * trie.backoffs[context]);
}

/**
 * Draw a token by inverse transform sampling, with a random number in [0, 1); return it with its probability. The children of the
 * longest context come first; then, context by context, those children of the shorter one that the longer one lacks. The order is
 * that of `stepping.py`, so equal numbers give equal tokens. Null if rounding errors leave no token.
 */
function propose(trie, context, number) {
  const { tokens, first, links, backoffs, root } = trie;
  let weight = 1;
  let [low, high] = [0, 0]; // the range of the longer context's children, whose tokens occur here, too
  for (; context !== 0; context = links[context]) {
    let passed = low;
    for (let child = first[context]; child < first[context + 1]; child++) {
      while (passed < high && tokens[passed] < tokens[child]) passed++;
      if (passed < high && tokens[passed] === tokens[child]) continue;
      const probability = weight * probabilityOf(trie, child);
      number -= probability;
      if (number < 0) return { token: tokens[child], probability };
    }
    weight *= backoffs[context];
    [low, high] = [first[context], first[context + 1]];
  }
  for (let token = 0; token < root.length; token++) {
    if (low < high && tokens[low] === token) {
      low++;
      continue;
    }
    const probability = weight * root[token];
    number -= probability;
    if (number < 0) return { token, probability };
  }
  return null;
}

/**
 * Return the stepper of an n-gram of texts with fields, which `fields.py` explains. State: the context; whether a field is being
 * read; the ids of the fields; the belief of each, the probability that it is copied next; and, while the text writes out a value,
 * the place of the value's next token (`written`) and the context that follows its marker (`after`).
 */
function createFieldStepper(config, trie) {
  const begin = config.vocab_size - 1;
  const marker = config.vocab_size - config.field_ids;
  const bos = Number(trie.bos_id[0]);
  const after = (context, token) => probabilityAfter(trie, context, token);

  /** Return the places where values begin. */
  const findValues = (ids) => [...ids.keys()].filter((at) => ids[at - 1] >= marker && ids[at] < marker);

  /** Return the probability of each value after a context: its marker's, divided among all forms by their first tokens. */
  function valueProbabilities(ids, values, context) {
    const firsts = values.map((at) => TINY + after(context, ids[at]));
    const ofMarker = (id) => sum(firsts.filter((_, number) => ids[values[number] - 1] === id));
    return values.map((at, number) => (after(context, ids[at - 1]) * firsts[number]) / ofMarker(ids[at - 1]));
  }

  /** Return the context for the next token, the weight of the n-gram, and the probability of each id to be copied. */
  function look(state) {
    const ids = state.isOpen ? [] : state.ids;
    const values = findValues(ids);
    let { context } = state;
    let parts, left;
    for (; ; context = trie.links[context]) {
      parts = valueProbabilities(ids, values, context);
      left = 1 + sum(parts);
      for (let id = marker; id <= begin; id++) left -= after(context, id);
      if (context === 0 || left >= MIN_LEFT) break;
    }
    const places = ids.filter((id) => id < marker).length;
    const anywhere = places > 0 ? ANYWHERE : 0;
    const plain = 1 - sum(state.beliefs.slice(0, ids.length));
    const weight = (plain * (1 - anywhere)) / left;
    const copied = ids.map((id, at) => (id < marker ? state.beliefs[at] + (plain * anywhere) / places : 0));
    values.forEach((at, number) => (copied[at] += weight * parts[number]));
    return { ids, context, weight, copied };
  }

  /** Return the beliefs after a token: if it was copied from a place, the copy may go on at the next place. */
  function updateBeliefs(state, token) {
    const { ids, context, weight, copied } = look(state);
    const p = weight * after(context, token) + sum(copied.filter((_, at) => ids[at] === token));
    const goesOn = (at) => at > 0 && ids[at - 1] === token && ids[at] < marker && p > 0;
    return ids.map((_, at) => (goesOn(at) ? (STAY * copied[at - 1]) / Math.max(p, TINY) : 0));
  }

  /** Return the place of the next token of the value that the text writes out, else 0, and the context after its marker. */
  function matchValue(state, token) {
    if (state.written > 0 && state.ids[state.written] === token) return { written: state.written + 1, after: state.after };
    const start = findValues(state.ids).find((at) => state.ids[at] === token);
    if (start === undefined) return { written: 0, after: state.after };
    return { written: start + 1, after: follow(trie, state.context, state.ids[start - 1]) };
  }

  function read(state, token) {
    let { isOpen, ids, beliefs, written } = state;
    if (token === bos) [isOpen, ids, beliefs, written] = [false, [], [], 0];
    else if (token >= marker) isOpen = token !== begin;
    if (token === begin) return { ...state, isOpen };
    if (isOpen) return ids.length < ROOM ? { ...state, isOpen, ids: [...ids, token], beliefs: [...beliefs, 0] } : { ...state, isOpen };
    const before = { ...state, isOpen, ids, beliefs, written };
    const next = { ...before, ...matchValue(before, token), beliefs: updateBeliefs(before, token) };
    const isWhole = next.written > 0 && !(ids[next.written] < marker);
    return isWhole ? { ...next, context: next.after, written: 0 } : { ...next, context: follow(trie, state.context, token) };
  }

  function forward(newIds, state) {
    for (const id of newIds) state = read(state, id);
    const { ids, context, weight, copied } = look(state);
    const row = computeProbabilities(trie, context).map((p, id) => (id < marker ? weight * p : 0));
    ids.forEach((id, at) => (row[id] += copied[at]));
    const total = sum(row);
    return { logits: row.map((p) => Math.log(p / total)), state };
  }

  const start = { context: 0, isOpen: false, ids: [], beliefs: [], written: 0, after: 0 };
  return { initialState: () => start, forward };
}
