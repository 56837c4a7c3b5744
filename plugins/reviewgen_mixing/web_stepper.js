/**
 * The stepper of mixing in JavaScript: it predicts and learns as `coding.py` does, and reads the arrays that `trained.py` saves.
 *
 * The state of a text: `registers`, the integers of `history.py`; its own slots, as `checks` and `values`; the `ring` of its last
 * symbols and the `index` of hashes in it; what it adds to the weights `sets` and `final`; and the expert's logit of each node.
 */

const PLACES = Array.from({ length: 18 }, (_, number) => 16 + number); // in the registers, which begin with the last 16 symbols
const [WORD, LETTERS, GAP, PREVIOUS, PREVIOUS_2, PREVIOUS_3, ENDING, SUFFIX, PUNCTUATION, SINCE, FIRST_OF_LINE, COLUMN] = PLACES;
const [GIVEN, READ, MATCH, MATCHED, SOURCE, COPIED] = PLACES.slice(12);
const [LETTER, MARK, NEWLINE, BLOCK, STATES, MIN_MATCH, MIN_COPY] = [1, 2, 3, 3, 242, 5, 7];
const WORD_CONTEXTS = [[], [PREVIOUS], [PREVIOUS, PREVIOUS_2], [PREVIOUS_2], [SUFFIX], [PREVIOUS, PREVIOUS_3], [FIRST_OF_LINE]];
const LOCAL = [2, 3, 4, 6, 9, 10]; // the contexts whose counts a text has of its own
const LEVELS = [0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 9, 9, 10, 10, 10, 10, 10, 10];
const round = Math.fround; // to float32, as in Python
const clip = (number, limit) => Math.min(Math.max(number, -limit), limit);
const squash = (logit) => round(1 / round(1 + round(Math.exp(-logit))));
const classOf = (length) => (length < 8 ? Math.max(0, (length - 3) >> 1) : Math.min(7, 3 + ((length - 8) / 5 | 0))); // of a match
const codeOf = (p) => Math.round(((clip(Math.log(p / (1 - p)), 7.5) + 7.5) * 31) / 15); // level of an adaptive probability
const CODES = Array.from({ length: 4096 }, (_, p) => codeOf((p + 0.5) / 4096));

/** Return the stepper of a model: `{initialState(), forward(ids, state, expert)}`. The logits are log probabilities. */
export default function createStepper(name, config, tensors) {
  const arrays = Object.fromEntries(Object.entries(tensors).map(([key, { data }]) => [key, data]));
  const { sets, final, maps, states, frequencies, text = [] } = arrays;
  const { vocab_size: vocabulary, local_slots: slots, condition_ids: conditions = 0, field_ids: fields = 0 } = config;
  const children = Array.from(arrays.tree, Number); // an int64 array may hold BigInts
  const { levels, places, trails, leaves, spans } = readTree(children, vocabulary);
  const alphabet = readAlphabet(config);
  const findCounts = readSlots(arrays);
  const positions = indexText(text);
  const isUsed = (context) => context < 9 || (context < 17 ? config.words : context < 20 ? config.sparse : conditions > 0);
  const chosen = Array.from({ length: 22 }, (_, context) => context).filter(isUsed);
  const looked = slots ? [...chosen, ...LOCAL] : chosen;
  const total = looked.length + 2; // of the probabilities that are mixed; the last two are those of the matches
  const [width, nodes, count] = [tensors.sets.shape[1], ...tensors.final.shape];
  const starts = [0, 64, 172, 332, 467, 467 + nodes, 468 + nodes + vocabulary, 469 + nodes + 2 * vocabulary]; // of the sets' rows
  const changed = config.gated ? starts[nodes > 256 ? 4 : 5] : 64;
  const ownRows = config.adapt_weights ? changed : 0; // whose weights a text changes
  const rare = Math.min(Math.max(1e-4, 6e-7 * nodes), 3e-3); // a subtree that is less probable is divided by frequencies
  const stretched = states.map((p) => Math.log(p / round(1 - p)));
  const floats = (length) => new Float32Array(length);
  const hashes = () => new Uint32Array(looked.length);
  const makeUnit = () => ({ inputs: floats(width), rows: [], logits: floats(count), p: 0, lines: hashes(), hashed: hashes() });
  const units = Array.from({ length: Math.max(...levels) + 1 }, makeUnit); // memory for the decision at each level
  let [own, registers, bases, expected] = []; // the state, its registers, the hashes of the contexts, and what the matches expect

  const initialState = () => ({
    ...{ registers: new Uint32Array(34 + 512), ring: new Uint16Array(slots), index: new Uint32Array(slots / 8) },
    ...{ checks: new Uint16Array(slots), values: new Uint32Array(slots), expert: floats(config.expert ? nodes : 0) },
    ...{ sets: floats(ownRows * width), final: floats(nodes * count) },
  });

  function forward(ids, state, expert) {
    own = Object.fromEntries(Object.entries(state).map(([part, numbers]) => [part, numbers.slice()]));
    registers = own.registers;
    ids.forEach(read);
    if (config.expert) hearExpert(expert);
    beginSymbol();
    const logits = floats(vocabulary).fill(-Infinity);
    predictBelow(0, 1, logits);
    return { logits, state: own };
  }

  function read(symbol) {
    if (symbol === config.bos_id) return Object.values(own).forEach((part) => part.fill(0));
    if (symbol >= vocabulary - conditions - fields) return (registers[GIVEN] = mix(registers[GIVEN], symbol + 1));
    if (slots) learn(trails[symbol]);
    readSymbol(alphabet, symbol, registers);
    const length = registers[READ];
    if (slots) {
      own.ring[(length - 1) % slots] = symbol;
      const entry = hashSymbols(registers, MIN_MATCH) % own.index.length;
      const candidate = length - own.index[entry] < slots - 16 ? own.index[entry] : 0;
      follow((place) => own.ring[place % slots], MATCH, MATCHED, candidate, MIN_MATCH, symbol);
      own.index[entry] = length;
    }
    if (text.length) {
      const candidate = length < MIN_COPY ? 0 : positions[hashSymbols(registers, MIN_COPY) % positions.length];
      follow((place) => text[place], SOURCE, COPIED, candidate, MIN_COPY, symbol);
      if (registers[SOURCE] >= text.length) registers[COPIED] = 0;
    }
  }

  /** Update a match, whose place and length are in two registers, or begin one at a candidate; `at` returns a symbol. */
  function follow(at, place, length, candidate, minimum, symbol) {
    const goesOn = registers[length] > 0 && at(registers[place]) === symbol;
    let found = 0; // symbols before the candidate that are the text's last ones
    while (found < Math.min(16, candidate) && at(candidate - 1 - found) === registers[found]) found++;
    registers[length] = goesOn ? Math.min(registers[length] + 1, 31) : found >= minimum ? found : 0;
    registers[place] = goesOn ? registers[place] + 1 : candidate;
  }

  function beginSymbol() {
    const contexts = hashContexts(registers);
    bases = looked.map((context) => mix(contexts[context], context));
    const next = [own.ring[registers[MATCH] % slots], text[registers[SOURCE]]];
    expected = [MATCHED, COPIED].map((place, which) => [next[which], classOf(registers[place])]);
  }

  /** Find the lines of all contexts for the block of the tree that begins at a node. */
  function openBlock(root) {
    const { lines, hashed } = units[levels[root]];
    for (let number = 0; number < looked.length; number++) {
      const hash = mix(bases[number], root + 1);
      const isOwn = number >= chosen.length;
      lines[number] = 16 * scale(hash, isOwn ? slots / 16 : arrays.used.length / 2);
      hashed[number] = isOwn ? mix(hash, 1) : Math.imul(hash, 0xc2b2ae35);
    }
  }

  /** Return the text's own slot of a decision. If it has none: -1, or the slot with the fewest counts, which is claimed. */
  function findOwn(line, hash, place, claims) {
    let [best, fewest] = [0, Infinity];
    for (let probe = 0; probe < 4; probe++) {
      const slot = slotOf(line, hash, place, probe);
      if (own.checks[slot] === checkOf(hash, place)) return slot;
      const counted = own.checks[slot] ? (own.values[slot] & 31) + ((own.values[slot] >>> 5) & 31) : -1;
      if (counted < fewest) [best, fewest] = [slot, counted];
    }
    if (claims) [own.checks[best], own.values[best]] = [checkOf(hash, place), 1 << 25];
    return claims ? best : -1;
  }

  /** Return the probability of the decision 1 at a node. The unit of its level keeps what learning needs. */
  function predict(node) {
    const level = levels[node];
    if (level % BLOCK === 0) openBlock(node);
    const unit = units[level];
    const { lines, hashed } = units[level - (level % BLOCK)];
    const { inputs, rows, logits } = unit;
    let [orders, words, ours] = [0, 0, 0]; // contexts that were seen: of symbols, of words, and of the text's own
    const say = (number, state) => {
      inputs[number] = stretched[STATES * number + state];
      inputs[total + number] = 3 * (states[STATES * number + state] - 0.5);
    };
    inputs.fill(0);
    for (let number = 0; number < looked.length; number++) {
      const isOwn = number >= chosen.length;
      const found = (isOwn ? findOwn : findCounts)(lines[number], hashed[number], places[node]);
      if (found < 0) continue;
      const counts = isOwn ? pack(own.values[found]) : found;
      say(number, counts >> 5);
      inputs[2 * total + number] = ((counts & 31) * 15) / 31 - 7.5;
      if (isOwn) ours++;
      else if (looked[number] < 9) orders += Math.sign(looked[number]);
      else if (looked[number] < 12) words++;
    }
    let longest = [0, 0, vocabulary]; // its length, its decision, and its symbol
    expected.forEach(([symbol, length], which) => {
      const step = length ? trails[symbol][level] : undefined;
      if (step === undefined || step >> 1 !== node) return;
      say(looked.length + which, 2 * length + (step & 1));
      if (length >= longest[0]) longest = [length, step & 1, symbol];
    });
    const opinion = config.expert ? own.expert[node] : 0;
    inputs.set(config.expert ? [0.3, opinion] : [0.3], 3 * total - 2);
    const support = config.expert ? 7 + clip(Math.round(1.5 * opinion), 7) : ours;
    const [last, before] = [0, 1].map((back) => (registers[READ] > back ? registers[back] + 1 : 0));
    const matched = (Math.min(3, ours >> 1) * 8 + longest[0]) * 2 + longest[1];
    const spelled = (words * 8 + Math.min(7, registers[LETTERS])) * 5 + (orders >> 1);
    const choices = [matched, orders * 12 + Math.min(level, 11), spelled, support * 9 + orders, node, last, before, longest[2]];
    let sum = 0;
    for (let set = 0; set < count; set++) {
      rows[set] = starts[set] + choices[set];
      logits[set] = clip(weigh(inputs, rows[set]), 12);
      sum += (final[node * count + set] + own.final[node * count + set]) * logits[set];
    }
    const logit = clip(round(sum), 12);
    unit.p = 1 / (1 + Math.exp(-logit));
    const hash = mix(node + 1, last);
    const cells = maps.length ? [hash % 16384, 16384 + (mix(hash, before + 1) % 16384)] : []; // rows of the two maps
    const position = round((round(clip(logit, 7.999)) + 8) * 2);
    const step = Math.floor(position);
    const rise = position - step;
    const read = (row) => (1 - rise) * maps[33 * row + step] + rise * maps[33 * row + step + 1];
    const p = cells.reduce((mixed, row) => mixed + 0.25 * read(row), cells.length ? 0.5 * unit.p : unit.p);
    return Math.min(Math.max(p, 1e-6), 1 - 1e-6);
  }

  /** Return the sum of the inputs with the weights of a row, which the text may have changed. */
  function weigh(inputs, row) {
    const start = row * width;
    const changes = own.sets;
    let sum = 0;
    if (row < ownRows) for (let k = 0; k < width; k++) sum += (sets[start + k] + changes[start + k]) * inputs[k];
    else for (let k = 0; k < width; k++) sum += sets[start + k] * inputs[k];
    return sum;
  }

  /** Learn the decisions of a symbol, each of which is a node times 2 plus the decision. */
  function learn(trail) {
    beginSymbol();
    for (const step of trail) predict(step >> 1);
    const rate = 0.0005 + 0.004 / (1 + registers[READ] / 2000); // of learning, as in `learn_symbol`
    for (const [level, step] of trail.entries()) {
      const [node, bit] = [step >> 1, step & 1];
      const { inputs, rows, logits, p } = units[level];
      for (let set = 0; set < count && ownRows; set++) {
        own.final[node * count + set] += round(0.3 * rate * (bit - p)) * logits[set];
        const change = round(rate * (bit - squash(logits[set])));
        if (rows[set] < ownRows) for (let k = 0; k < width; k++) own.sets[rows[set] * width + k] += change * inputs[k];
      }
      const { lines, hashed } = units[level - (level % BLOCK)];
      for (let number = chosen.length; number < looked.length; number++) {
        const slot = findOwn(lines[number], hashed[number], places[node], true);
        own.values[slot] = update(own.values[slot], bit);
      }
    }
  }

  /** Write the log probability of each symbol below a node of some probability, or of the leaf -1 - node. */
  function predictBelow(node, mass, logits) {
    if (node < 0) logits[-1 - node] = Math.log(mass);
    else if (mass < rare) {
      const below = leaves.slice(spans[node][0], spans[node][2]);
      const sum = below.reduce((all, symbol) => all + frequencies[symbol], 0);
      for (const symbol of below) logits[symbol] = Math.log(mass * (frequencies[symbol] / sum));
    } else {
      const p = predict(node);
      predictBelow(children[2 * node], mass * (1 - p), logits);
      predictBelow(children[2 * node + 1], mass * p, logits);
    }
  }

  function hearExpert(logits) {
    const largest = leaves.reduce((most, symbol) => Math.max(most, logits[symbol]), -Infinity);
    const sums = [0]; // of the probabilities of the leaves before each, up to a factor
    for (const symbol of leaves) sums.push(sums.at(-1) + (largest > -Infinity ? Math.exp(logits[symbol] - largest) : 0));
    const oddsOf = ([start, middle, end]) => (sums[end] - sums[middle] + 1e-12) / (sums[middle] - sums[start] + 1e-12);
    own.expert.set(spans.map((span) => clip(Math.log(oddsOf(span)), 10)));
  }

  return { initialState, forward };
}

/**
 * Return the tree of these children: of each node its level, its place in its block, and where the leaves of its two halves begin
 * and end; the leaves from left to right; and of each symbol its decisions, each the node times 2 plus the decision.
 */
function readTree(children, vocabulary) {
  const tree = { levels: [], places: [], spans: [], leaves: [], trails: Array.from({ length: vocabulary }, () => []) };
  function visit(node, place, trail) {
    [tree.levels[node], tree.places[node], tree.spans[node]] = [trail.length, place, [tree.leaves.length]];
    for (const bit of [0, 1]) {
      const [child, way] = [children[2 * node + bit], [...trail, 2 * node + bit]];
      if (child >= 0) visit(child, way.length % BLOCK ? 2 * place + bit : 1, way);
      else tree.trails[tree.leaves[tree.leaves.push(-1 - child) - 1]] = way;
      tree.spans[node].push(tree.leaves.length);
    }
  }
  visit(0, 1, []);
  return tree;
}

/** Return the kind of each symbol, and the id of the same letter in lower case; without an alphabet, all are letters. */
function readAlphabet({ alphabet, vocab_size: vocabulary }) {
  const kinds = new Uint8Array(vocabulary).fill(alphabet ? 0 : LETTER);
  const folded = Array.from(kinds, (_, id) => id);
  const ids = new Map(Array.from(alphabet, (character, id) => [character, id]));
  ids.delete("\0"); // stands for ids that are not characters
  for (const [character, id] of ids) {
    if (/\p{L}/u.test(character)) [kinds[id], folded[id]] = [LETTER, ids.get(character.toLowerCase()) ?? id];
    else kinds[id] = character === "\n" ? NEWLINE : '.,;:!?()"'.includes(character) ? MARK : 0;
  }
  return { kinds, folded };
}

const checkOf = (hash, place) => ((hash >>> 8) & 0xfff8) | place;
const slotOf = (line, hash, place, probe) => line + (((hash >>> 3) & 15) ^ (2 * place) ^ probe);
const scale = (hash, size) => Math.floor(((hash >>> 16) * size + Math.floor(((hash & 0xffff) * size) / 65536)) / 65536);

/** Return a function that looks the counts of a decision up, as `pack` returns them; -1 if there are none. */
function readSlots({ used, slots }) {
  const ones = Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);
  const before = new Uint32Array(used.length + 1); // the number of slots in use before each eight
  used.forEach((byte, at) => (before[at + 1] = before[at] + ones[byte]));
  return (line, hash, place) => {
    for (let probe = 0; probe < 4; probe++) {
      const slot = slotOf(line, hash, place, probe);
      const byte = used[slot >> 3] >> (7 - (slot & 7));
      const at = 3 * (before[slot >> 3] + ones[byte >> 1]);
      const value = byte & 1 ? slots[at] | (slots[at + 1] << 8) | (slots[at + 2] << 16) : 0;
      if (value >> 13 === (checkOf(hash, place) & 0x7ff)) return value & 0x1fff;
    }
    return -1;
  };
}

/** Return the counts of a text's own slot as a trained slot has them: the state times 32, plus the level of the probability. */
function pack(value) {
  const state = (LEVELS[value & 31] * 11 + LEVELS[(value >>> 5) & 31]) * 2 + ((value >>> 10) & 1);
  return 32 * state + CODES[(value >>> 14) & 4095];
}

/** Return the value of a text's own slot after one more decision. */
function update(value, bit) {
  const shift = 5 * bit;
  const same = Math.min(((value >>> shift) & 31) + 1, 31);
  const other = (value >>> (5 - shift)) & 31;
  const [p, updates] = [(value >>> 12) & 0x3fff, value >>> 26];
  const moved = p + Math.round((bit * 0x3fff - p) * (1 / (updates + 1.5)));
  const counts = (same << shift) | ((other > 2 ? (other + 3) >> 1 : other) << (5 - shift));
  return counts | ((((value >>> 9) & 2) | bit) << 10) | (moved << 12) | (Math.min(updates + 1, 63) << 26);
}

/** Return where a text goes on after each hash. */
function indexText(text) {
  const positions = new Uint32Array(text.length ? Math.min(1 << 22, 2 * text.length + 1) : 0);
  for (let position = MIN_COPY; position < text.length; position++) {
    let hash = 0;
    for (let back = 1; back <= MIN_COPY; back++) hash = mix(hash, text[position - back] + 1);
    positions[hash % positions.length] = position;
  }
  return positions;
}

/** Return a hash of 32 bits of a hash and another number. */
function mix(hash, value) {
  const product = Math.imul(hash ^ Math.imul(value, 0x9e3779b1), 0x85ebca6b);
  return (product ^ (product >>> 15)) >>> 0;
}

const mixAll = (...numbers) => numbers.reduce((hash, value) => mix(hash, value));
const hashSymbols = (symbols, number) => mixAll(0, ...Array.from(symbols.slice(0, number), (symbol) => symbol + 1));
const pairOf = (registers) => 34 + (mix(registers[1] + 1, registers[0] + 1) % 512); // the place of its last successors

/** Update the registers with the next symbol. */
function readSymbol({ kinds, folded }, symbol, registers) {
  registers[pairOf(registers)] = (registers[pairOf(registers)] << 16) | (symbol + 1);
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
    registers[FIRST_OF_LINE] ||= registers[WORD];
    registers.set([registers[WORD], registers[PREVIOUS], registers[PREVIOUS_2]], PREVIOUS); // each word moves on by one
    registers[SUFFIX] = mix(registers[ENDING], Math.min(registers[LETTERS], 15));
    registers[SINCE] = Math.min(registers[SINCE] + 1, 255);
    for (const place of [WORD, LETTERS, ENDING, GAP]) registers[place] = 0;
  }
  registers[GAP] = mix(registers[GAP], symbol + 1);
  if (kinds[symbol] === MARK) [registers[PUNCTUATION], registers[SINCE]] = [symbol, 0];
  if (kinds[symbol] === NEWLINE) [registers[COLUMN], registers[FIRST_OF_LINE]] = [0, 0];
}

/** Return the hash of each context that `history.py` lists. */
function hashContexts(registers) {
  const orders = [0]; // and contexts of the last symbols
  let hash = 0;
  for (let place = 0; place < 11; place++) {
    hash = mix(hash, registers[place] + 1);
    if (place < 6 || place === 7 || place === 10) orders.push(mix(hash, orders.length));
  }
  const word = mix(registers[WORD], registers[GAP]);
  const last = registers[0] + 1;
  const words = WORD_CONTEXTS.map((places, number) => mixAll(word, ...places.map((place) => registers[place]), 9 + number));
  const punctuated = mixAll(word, registers[PUNCTUATION], 4096 + registers[SINCE]);
  const skipped = mixAll(registers[1] + 1, registers[2] + 1, registers[3] + 1, 17);
  const sparse = [skipped, mixAll(registers[pairOf(registers)], last, 18), mixAll(registers[COLUMN], last, 19)];
  const given = registers[GIVEN];
  return [...orders, ...words, punctuated, ...sparse, mixAll(word, given, 20), mixAll(orders[3], given, 21)];
}
