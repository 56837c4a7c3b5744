/**
 * The stepper of mixing in JavaScript: it predicts and learns as `coding.py` does, and reads the arrays that `trained.py` saves.
 *
 * The state of a text: `registers`, the integers of `history.py`; its own slots, as `checks` and `values`; the `ring` of its last
 * symbols and the `index` of hashes in it; what it adds to the weights `sets` and `final`; and the expert's logit of each node.
 */

const PLACES = Array.from({ length: 18 }, (_, number) => 16 + number); // in the registers, which begin with the last 16 symbols
const [WORD, LETTERS, GAP, PREVIOUS, SECOND, THIRD, ENDING, SUFFIX, PUNCTUATION, SINCE, FIRST, COLUMN] = PLACES;
const [GIVEN, READ, MATCH, MATCHED, SOURCE, COPIED] = PLACES.slice(12);
const [SUCCESSORS, SUCCESSOR_PAIRS, LETTER, MARK, NEWLINE, BLOCK, STATES, RATE, RARE] = [34, 512, 1, 2, 3, 3, 242, 0.0007, 1e-4];
const [ORDERS, WORDS, SPARSE, CONDITIONS] = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15, 16], [17, 18, 19], [20, 21]];
const LOCAL = [2, 3, 4, 6, 9, 10]; // the contexts whose counts a text has of its own
const LEVELS = [0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 10];
const clip = (number, limit) => Math.min(Math.max(number, -limit), limit);
const squash = (logit) => Math.fround(1 / Math.fround(1 + Math.fround(Math.exp(-logit)))); // rounded as in Python
const STRETCHED = Float32Array.from({ length: 32 }, (_, code) => (code * 15) / 31 - 7.5); // logits of adaptive probabilities
const CODES = Array.from({ length: 4096 }, (_, p) => Math.round(((clip(Math.log((p + 0.5) / (4095.5 - p)), 7.5) + 7.5) * 31) / 15));

/** Return the stepper of a model: `{initialState(), forward(ids, state, expert)}`. The logits are log probabilities. */
export default function createStepper(name, config, tensors) {
  const arrays = Object.fromEntries(Object.entries(tensors).map(([key, { data }]) => [key, data]));
  const { sets, final, maps, states, frequencies, text = [] } = arrays;
  const { vocab_size: vocabulary, local_slots: slots } = config;
  const { children, levels, places, trails, leaves, spans } = readTree(Array.from(arrays.tree, Number), vocabulary);
  const [alphabet, findCounts, positions] = [readAlphabet(config), readSlots(arrays), indexText(text)];
  const [width, nodes, count] = [tensors.sets.shape[1], ...tensors.final.shape];
  const chosen = [ORDERS, config.words ? WORDS : [], config.sparse ? SPARSE : [], config.condition_ids ? CONDITIONS : []].flat();
  const looked = slots ? [...chosen, ...LOCAL] : chosen;
  const [total, matchAt] = [looked.length + 2, looked.length]; // of the probabilities; the last two are of matches
  const starts = [0, 64, 172, 332, 467, 467 + nodes, 468 + nodes + vocabulary, 469 + nodes + 2 * vocabulary]; // first row of each set
  const changed = config.gated ? starts[nodes > 256 ? 4 : 5] : 64;
  const ownRows = config.adapt_weights ? changed : 0;
  const stretched = states.map((p) => Math.log(p / Math.fround(1 - p)));
  const makeHashes = () => new Uint32Array(looked.length);
  const units = Array.from({ length: Math.max(...levels) + 1 }, () => ({ // memory for a decision at each level
    ...{ inputs: new Float32Array(width), rows: new Uint32Array(count), logits: new Float32Array(count), p: 0 },
    ...{ lines: makeHashes(), hashes: makeHashes() }, // of the contexts, if a block begins at this level
  }));
  let [own, registers, bases, expected] = []; // the state in use, its registers, hashes of the contexts, and what the matches expect

  const initialState = () => ({
    ...{ registers: new Uint32Array(SUCCESSORS + SUCCESSOR_PAIRS), ring: new Uint16Array(slots), index: new Uint32Array(slots / 8) },
    ...{ checks: new Uint16Array(slots), values: new Uint32Array(slots) },
    ...{ sets: new Float32Array(ownRows * width), final: new Float32Array(nodes * count) },
    expert: new Float32Array(config.expert ? nodes : 0),
  });

  function forward(ids, state, expert) {
    own = Object.fromEntries(Object.entries(state).map(([part, numbers]) => [part, numbers.slice()]));
    registers = own.registers;
    ids.forEach(read);
    if (config.expert) hearExpert(expert);
    const logits = new Float32Array(vocabulary).fill(-Infinity);
    beginSymbol();
    predictBelow(0, 1, logits);
    return { logits, state: own };
  }

  function read(symbol) {
    if (symbol === config.bos_id) return Object.values(own).forEach((part) => part.fill(0));
    const isGiven = symbol >= vocabulary - config.condition_ids - config.field_ids;
    if (isGiven) return (registers[GIVEN] = mix(registers[GIVEN], symbol + 1));
    if (slots) learn(trails[symbol]);
    readSymbol(alphabet, symbol, registers);
    if (slots) followOwn(symbol);
    if (text.length) {
      const hashed = hashBefore(registers, 7) % positions.length;
      follow((place) => text[place], SOURCE, COPIED, registers[READ] < 7 ? 0 : positions[hashed], 7, symbol);
      if (registers[SOURCE] >= text.length) registers[COPIED] = 0;
    }
  }

  function followOwn(symbol) {
    own.ring[(registers[READ] - 1) % slots] = symbol;
    const entry = hashBefore(registers, 5) % (slots / 8);
    const isInRing = registers[READ] - own.index[entry] < slots - 16;
    follow((place) => own.ring[place % slots], MATCH, MATCHED, isInRing ? own.index[entry] : 0, 5, symbol);
    own.index[entry] = registers[READ];
  }

  /** Update a match, whose place and length are in two registers, or begin one at a candidate; `at` gives the symbol at a place. */
  function follow(at, place, length, candidate, minimum, symbol) {
    const goesOn = registers[length] > 0 && at(registers[place]) === symbol;
    registers[length] = goesOn ? Math.min(registers[length] + 1, 31) : 0;
    registers[place] += goesOn ? 1 : 0;
    if (goesOn) return;
    let found = 0;
    while (found < Math.min(16, candidate) && at(candidate - 1 - found) === registers[found]) found++;
    if (found >= minimum) [registers[place], registers[length]] = [candidate, found];
  }

  function beginSymbol() {
    const contexts = hashContexts(registers);
    bases = looked.map((context) => mix(contexts[context], context));
    const matches = [[own.ring[registers[MATCH] % slots], registers[MATCHED]], [text[registers[SOURCE]], registers[COPIED]]];
    expected = matches.map(([symbol, length]) => ({ symbol, length: classOf(length) }));
  }

  function openBlock(root) {
    const { lines, hashes } = units[levels[root]];
    for (let number = 0; number < looked.length; number++) {
      const hashed = mix(bases[number], root + 1);
      const isOwn = number >= chosen.length;
      lines[number] = scale(hashed, isOwn ? slots / 16 : arrays.used.length / 2);
      hashes[number] = isOwn ? mix(hashed, 1) : Math.imul(hashed, 0xc2b2ae35);
    }
  }

  /** Return the place of a decision's own slot; if it has none, that of the slot with the fewest counts, as -1 - place. */
  function findOwn(line, hashed, place) {
    let [best, fewest] = [0, Infinity];
    for (let probe = 0; probe < 4; probe++) {
      const slot = 16 * line + ((((hashed >>> 3) & 15) ^ (2 * place)) ^ probe);
      if (own.checks[slot] === checkOf(hashed, place)) return slot;
      const counted = own.checks[slot] ? (own.values[slot] & 31) + ((own.values[slot] >>> 5) & 31) : -1;
      if (counted < fewest) [best, fewest] = [slot, counted];
    }
    return -1 - best;
  }

  /** Return the state of a context's counts times 32, plus the level of their adaptive probability; -1 if there are no counts. */
  function lookUp(number, node) {
    const { lines, hashes } = units[levels[node] - (levels[node] % BLOCK)];
    if (number < chosen.length) return findCounts(lines[number], hashes[number], places[node]);
    const slot = findOwn(lines[number], hashes[number], places[node]);
    return slot < 0 ? -1 : packed(own.values[slot]);
  }

  /** Return the probability of the decision 1 at a node. The unit of its level keeps what learning needs. */
  function predict(node) {
    const level = levels[node];
    const unit = units[level];
    if (level % BLOCK === 0) openBlock(node);
    const { inputs, rows, logits } = unit;
    const seen = { orders: 0, words: 0, own: 0 };
    inputs.fill(0);
    const say = (number, state) => {
      inputs[number] = stretched[STATES * number + state];
      inputs[total + number] = 3 * (states[STATES * number + state] - 0.5);
    };
    looked.forEach((context, number) => {
      const found = lookUp(number, node);
      if (found < 0) return;
      say(number, found >> 5);
      inputs[2 * total + number] = STRETCHED[found & 31];
      if (number >= chosen.length) seen.own++;
      else if (context > 0 && context < 12) seen[context < 9 ? "orders" : "words"]++;
    });
    let longest = { length: 0, bit: 0, symbol: vocabulary };
    expected.forEach(({ symbol, length }, which) => {
      const step = length > 0 ? trails[symbol][level] : undefined;
      if (step === undefined || step >> 1 !== node) return;
      say(matchAt + which, 2 * length + (step & 1));
      if (length >= longest.length) longest = { length, bit: step & 1, symbol };
    });
    inputs[2 * total + matchAt] = 0.3;
    if (config.expert) inputs[2 * total + matchAt + 1] = own.expert[node];
    const support = config.expert ? 7 + clip(Math.round(1.5 * own.expert[node]), 7) : seen.own;
    const [last, before] = [0, 1].map((back) => (registers[READ] > back ? registers[back] + 1 : 0));
    const letters = Math.min(7, registers[LETTERS]);
    const ownClass = Math.min(3, seen.own >> 1);
    const choices = [(ownClass * 8 + longest.length) * 2 + longest.bit, seen.orders * 12 + Math.min(level, 11)];
    choices.push((seen.words * 8 + letters) * 5 + (seen.orders >> 1), support * 9 + seen.orders, node, last, before, longest.symbol);
    let logit = 0;
    for (let set = 0; set < count; set++) {
      rows[set] = starts[set] + choices[set];
      logits[set] = clip(weigh(inputs, rows[set]), 12);
      logit += (final[node * count + set] + own.final[node * count + set]) * logits[set];
    }
    logit = clip(Math.fround(logit), 12);
    unit.p = squash(logit);
    const hashed = mix(node + 1, last);
    const mapped = maps.length ? readMap(logit, hashed, 0) + readMap(logit, mix(hashed, before + 1), 1) : 2 * unit.p;
    return Math.fround(Math.min(Math.max(0.5 * unit.p + 0.25 * mapped, 1e-6), 1 - 1e-6)); // 1 - p depends on the rounding
  }

  /** Return the sum of the inputs with the weights of a row, which the text may have changed. */
  function weigh(inputs, row) {
    const start = row * width;
    let sum = 0;
    if (row < ownRows) for (let k = 0; k < width; k++) sum += (sets[start + k] + own.sets[start + k]) * inputs[k];
    else for (let k = 0; k < width; k++) sum += sets[start + k] * inputs[k];
    return sum;
  }

  /** Return the probability in a row of one of the two adaptive probability maps. */
  function readMap(logit, hashed, which) {
    const position = Math.fround((Math.fround(clip(logit, 7.999) + 8)) * 2);
    const step = Math.floor(position);
    const start = (which * 16384 + (hashed % 16384)) * 33 + step;
    return (1 - position + step) * maps[start] + (position - step) * maps[start + 1];
  }

  /** Learn the decisions of a symbol, each of which is a node times 2 plus the decision. */
  function learn(trail) {
    beginSymbol();
    for (const step of trail) predict(step >> 1);
    for (const step of trail) {
      const [node, bit] = [step >> 1, step & 1];
      if (ownRows) changeWeights(node, bit);
      for (let number = chosen.length; number < looked.length; number++) countOwn(number, node, bit);
    }
  }

  function changeWeights(node, bit) {
    const { inputs, rows, logits, p } = units[levels[node]];
    for (let set = 0; set < count; set++) {
      own.final[node * count + set] += Math.fround(0.3 * RATE * (bit - p)) * logits[set];
      if (rows[set] >= ownRows) continue;
      const rate = Math.fround(RATE * (bit - squash(logits[set])));
      for (let k = 0; k < width; k++) own.sets[rows[set] * width + k] += rate * inputs[k];
    }
  }

  function countOwn(number, node, bit) {
    const { lines, hashes } = units[levels[node] - (levels[node] % BLOCK)];
    const found = findOwn(lines[number], hashes[number], places[node]);
    const slot = found < 0 ? -1 - found : found;
    if (found < 0) [own.checks[slot], own.values[slot]] = [checkOf(hashes[number], places[node]), 1 << 25];
    own.values[slot] = updated(own.values[slot], bit);
  }

  /** Write the log probability of each symbol below a node, or of the leaf -1 - node, which has a probability in all. */
  function predictBelow(node, mass, logits) {
    if (node < 0) logits[-1 - node] = Math.log(mass);
    else if (mass < RARE) {
      const below = leaves.slice(spans[node][0], spans[node][2]);
      const sum = below.reduce((sum, symbol) => sum + frequencies[symbol], 0);
      for (const symbol of below) logits[symbol] = Math.log(mass * (frequencies[symbol] / sum));
    } else {
      const p = predict(node);
      predictBelow(children[2 * node], mass * (1 - p), logits);
      predictBelow(children[2 * node + 1], mass * p, logits);
    }
  }

  function hearExpert(expert) {
    const largest = leaves.reduce((most, symbol) => Math.max(most, expert[symbol]), -Infinity);
    const sums = [0]; // of the probabilities of the leaves before each, up to a factor
    for (const symbol of leaves) sums.push(sums.at(-1) + (largest > -Infinity ? Math.exp(expert[symbol] - largest) : 0));
    spans.forEach(([start, middle, end], node) => {
      own.expert[node] = clip(Math.log((sums[end] - sums[middle] + 1e-12) / (sums[middle] - sums[start] + 1e-12)), 10);
    });
  }

  return { initialState, forward };
}

/**
 * Return the tree of these children: of each node its level, its place in its block, and where the leaves of its two halves begin and
 * end; the leaves from left to right; and of each symbol its decisions, each the node times 2 plus the decision.
 */
function readTree(children, vocabulary) {
  const [levels, places, spans, leaves, trails] = [[], [], [], [], Array.from({ length: vocabulary }, () => [])];
  function visit(node, place, trail) {
    [levels[node], places[node], spans[node]] = [trail.length, place, [leaves.length]];
    for (const bit of [0, 1]) {
      const child = children[2 * node + bit];
      const way = [...trail, 2 * node + bit];
      if (child < 0) trails[-1 - child] = way;
      if (child < 0) leaves.push(-1 - child);
      else visit(child, way.length % BLOCK ? 2 * place + bit : 1, way);
      spans[node].push(leaves.length);
    }
  }
  visit(0, 1, []);
  return { children, levels, places, spans, leaves, trails };
}

/** Return the kind of each symbol, and the id of the same letter in lower case; without an alphabet, all are letters. */
function readAlphabet({ alphabet, vocab_size: vocabulary }) {
  const kinds = new Uint8Array(vocabulary).fill(alphabet ? 0 : LETTER);
  const folded = Array.from(kinds, (_, id) => id);
  const ids = new Map(Array.from(alphabet, (character, id) => [character, id]));
  ids.delete("\0");
  for (const [character, id] of ids) {
    if (/\p{L}/u.test(character)) [kinds[id], folded[id]] = [LETTER, ids.get(character.toLowerCase()) ?? id];
    else if (character === "\n") kinds[id] = NEWLINE;
    else if ('.,;:!?()"'.includes(character)) kinds[id] = MARK;
  }
  return { kinds, folded };
}

/** Return a function that looks up the counts of a decision in a line of the trained slots; -1 if there are none. */
function readSlots({ used, slots }) {
  const bitsOf = (line) => (used[2 * line] << 8) | used[2 * line + 1];
  const starts = new Uint32Array(used.length / 2 + 1); // the number of slots in use before each line
  for (let line = 0; 2 * line < used.length; line++) starts[line + 1] = starts[line] + countOnes(bitsOf(line));
  return (line, hashed, place) => {
    const bits = bitsOf(line);
    for (let probe = 0; probe < 4; probe++) {
      const slot = ((hashed >>> 3) & 15) ^ (2 * place) ^ probe;
      const at = 3 * (starts[line] + countOnes(bits >> (16 - slot)));
      const value = (bits >> (15 - slot)) & 1 ? slots[at] | (slots[at + 1] << 8) | (slots[at + 2] << 16) : 0;
      if (value >> 13 === (checkOf(hashed, place) & 0x7ff)) return value & 0x1fff;
    }
    return -1;
  };
}

/** Return how many of 16 bits are set. */
function countOnes(bits) {
  const pairs = bits - ((bits >> 1) & 0x5555);
  const fours = (pairs & 0x3333) + ((pairs >> 2) & 0x3333);
  return (((fours + (fours >> 4)) & 0x0f0f) * 0x0101 >> 8) & 31;
}

/** Return where a text goes on after each hash. */
function indexText(text) {
  const positions = new Uint32Array(text.length ? Math.min(1 << 22, 2 * text.length + 1) : 0);
  const recent = (position) => text.slice(position - 7, position).reverse();
  for (let position = 7; position < text.length; position++) positions[hashBefore(recent(position), 7) % positions.length] = position;
  return positions;
}

const checkOf = (hashed, place) => ((hashed >>> 8) & 0xfff8) | place;
const scale = (hashed, size) => Math.floor(((hashed >>> 16) * size + Math.floor(((hashed & 0xffff) * size) / 65536)) / 65536);

/** Return a class of the length of a match. */
const classOf = (length) => (length < 8 ? (length && 1 + ((length - 5) >> 1)) : Math.min(7, 3 + Math.floor((length - 8) / 5)));

/** Return the state of a value of a text's own slot, times 32, plus the level of its adaptive probability. */
const packed = (value) =>
  (((LEVELS[value & 31] * 11 + LEVELS[(value >>> 5) & 31]) * 2 + ((value >>> 10) & 1)) << 5) | CODES[(value >>> 14) & 4095];

/** Return the value of a text's own slot after one more decision. */
function updated(value, bit) {
  const shift = 5 * bit;
  const same = Math.min(((value >>> shift) & 31) + 1, 31);
  const other = (value >>> (5 - shift)) & 31;
  const kept = other > 2 ? (other + 3) >> 1 : other;
  const updates = value >>> 26;
  const p = (value >>> 12) & 0x3fff;
  const moved = p + Math.round((bit * 0x3fff - p) * (1 / (updates + 1.5)));
  const last = ((value >>> 9) & 2) | bit;
  return (same << shift) | (kept << (5 - shift)) | (last << 10) | (moved << 12) | (Math.min(updates + 1, 63) << 26);
}

/** Return a hash of a hash and another number. */
function mix(hashed, value) {
  const product = Math.imul(hashed ^ Math.imul(value, 0x9e3779b1), 0x85ebca6b);
  return (product ^ (product >>> 15)) >>> 0;
}

const mixAll = (...numbers) => numbers.reduce((hashed, value) => mix(hashed, value));
const hashBefore = (recent, count) => mixAll(0, ...Array.from(recent.slice(0, count), (symbol) => symbol + 1));
const pairOf = (registers) => SUCCESSORS + (mix(registers[1] + 1, registers[0] + 1) % SUCCESSOR_PAIRS);

/** Update the registers with the next symbol. */
function readSymbol({ kinds, folded }, symbol, registers) {
  const pair = pairOf(registers);
  registers[pair] = (registers[pair] << 16) | (symbol + 1);
  registers.copyWithin(1, 0, 15);
  registers[0] = symbol;
  registers[READ]++;
  registers[COLUMN]++;
  if (kinds[symbol] === LETTER) {
    registers[WORD] = mix(registers[WORD], folded[symbol] + 1);
    registers[LETTERS]++;
    registers[ENDING] = ((registers[ENDING] << 10) ^ folded[symbol]) & 0x3fffffff;
    return;
  }
  if (registers[LETTERS] > 0) {
    registers[FIRST] ||= registers[WORD];
    registers.copyWithin(SECOND, PREVIOUS, SECOND + 1);
    registers[PREVIOUS] = registers[WORD];
    registers[SUFFIX] = mix(registers[ENDING], Math.min(registers[LETTERS], 15));
    registers[SINCE] = Math.min(registers[SINCE] + 1, 255);
    for (const place of [WORD, LETTERS, ENDING, GAP]) registers[place] = 0;
  }
  registers[GAP] = mix(registers[GAP], symbol + 1);
  if (kinds[symbol] === MARK) [registers[PUNCTUATION], registers[SINCE]] = [symbol, 0];
  if (kinds[symbol] === NEWLINE) [registers[COLUMN], registers[FIRST]] = [0, 0];
}

/** Return the hash of each context that `history.py` lists. */
function hashContexts(registers) {
  const contexts = [0];
  let hashed = 0;
  for (let place = 0; place < 11; place++) {
    hashed = mix(hashed, registers[place] + 1);
    if (place < 6 || place === 7 || place === 10) contexts.push(mix(hashed, contexts.length));
  }
  const word = mix(registers[WORD], registers[GAP]);
  const [previous, second, third, , suffix, mark, since, first, column, given] = registers.subarray(PREVIOUS);
  const last = registers[0] + 1;
  contexts.push(
    ...[mix(word, 9), mixAll(word, previous, 10), mixAll(word, previous, second, 11), mixAll(word, second, 12), mixAll(word, suffix, 13)],
    ...[mixAll(word, previous, third, 14), mixAll(word, first, 15), mixAll(word, mark, 4096 + since)],
    ...[mixAll(...Array.from(registers.slice(1, 4), (symbol) => symbol + 1), 17), mixAll(registers[pairOf(registers)], last, 18)],
    ...[mixAll(column, last, 19), mixAll(word, given, 20), mixAll(contexts[3], given, 21)],
  );
  return contexts;
}
