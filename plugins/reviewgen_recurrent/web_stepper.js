/**
 * The stepper of rnn, gru and lstm in JavaScript; its equations are those of `rnn.py`, `gru.py` and `lstm.py`.
 *
 * One text at a time. Shapes: V vocabulary, E embedding, H hidden, L layers, K tokens before the last one that n-grams look at,
 * A width of a key, W tokens that a pointer can copy.
 */

const MULTIPLIER = 0x9e3779b1; // used by the hash of n-grams, as in `kernels.py`
const NORM_EPSILON = 1e-6; // as in `config.py`
const CELLS = { rnn: advanceRnn, gru: advanceGru, lstm: advanceLstm };

/**
 * Return the stepper of a model: `{initialState(), forward(ids, state)}`.
 * The state has h and c (H) of each layer, the last K ids, and the sum of the embeddings of the text's conditions and fields.
 * Divided by the root of the number of their ids and multiplied by a matrix, this sum is added to the input of the output layer.
 * With a pointer, the state has the keys (A) and ids of the last W tokens, and the key of the next one.
 */
export default function createStepper(name, config, tensors) {
  const layers = Array.from({ length: config.layers }, (_, layer) => readLayer(tensors, layer));
  const table = tensors["embedding.weight"].data;
  const embed = makeEmbedding(config, table, tensors["ngrams.table.weight"]?.data);
  const shift = tensors.held?.matrix();
  const output = tensors[config.tied ? "embedding.weight" : "output.weight"].matrix(); // tied, with a projection before it if H is not E
  const projection = tensors["output.projection.weight"]?.matrix();
  const bias = tensors["output.bias"].data;
  const pointer = config.pointer ? makePointer(config, tensors) : null;
  const activate = config.activation === "relu" ? (x) => Math.max(0, x) : Math.tanh;
  const zoneout = config.zoneout ?? 0;
  const mix = (old, fresh) => zoneout * old + (1 - zoneout) * fresh; // expected value of a unit under zoneout

  function initialState() {
    const zeros = () => layers.map(() => new Float32Array(config.hidden_size));
    const past = new Array((config.ngrams ?? 1) - 1).fill(config.vocab_size);
    return { h: zeros(), c: zeros(), past, held: hold(config, table, null, config.bos_id), copied: pointer?.initial };
  }

  function outputInput(h, held) {
    const last = projection ? projection.product(h) : h;
    const given = shift?.product(held.sum.map((number) => number / Math.sqrt(Math.max(1, held.count))));
    return given ? last.map((number, j) => number + given[j]) : last;
  }

  function forward(ids, state) {
    const [h, c] = [state.h.map((part) => part.slice()), state.c.map((part) => part.slice())];
    let { past, held, copied } = state;
    for (const id of ids) {
      held = hold(config, table, held, id);
      let x = embed(id, past);
      past = [...past, id].slice(1);
      layers.forEach(({ input, hidden, inputBias, hiddenBias }, l) => {
        CELLS[name](input.product(x, inputBias), hidden.product(h[l], hiddenBias), h[l], c[l], activate, mix);
        x = h[l];
      });
      if (pointer) copied = pointer.append(copied, id, outputInput(x, held));
    }
    const inputs = outputInput(h.at(-1), held);
    const logits = output.product(inputs, bias);
    return { logits: pointer ? pointer.mix(logits, copied, inputs) : logits, state: { h, c, past, held, copied } };
  }

  return { initialState, forward };
}

/** Return the pointer of a model: its first state, and functions that append a token and mix copies into the logits; see `pointer.py`. */
function makePointer({ pointer: window, bos_id: bos, vocab_size: end, condition_ids = 0, field_ids = 0 }, tensors) {
  const [key, query, gate] = ["key", "query", "gate"].map((name) => tensors[`pointer.${name}.weight`].matrix());
  const [weights, gateBias] = [tensors["pointer.norm.weight"].data, tensors["pointer.gate.bias"].data];
  const normalise = (x) => {
    const scale = 1 / Math.sqrt(x.reduce((sum, number) => sum + number * number, 0) / x.length + NORM_EPSILON);
    return x.map((number, j) => number * scale * weights[j]);
  };

  /** Return the state after a token, `{tokens, next}`. x is the input of the output layer; -1 stands for an id that is not copied. */
  function append({ tokens, next }, id, x) {
    const copied = id === bos || id >= end - field_ids - condition_ids ? -1 : id;
    const earlier = id === bos ? [] : tokens;
    return { tokens: [...earlier, { id: copied, key: next }].slice(-window), next: key.product(normalise(x)) };
  }

  /** Return the log probabilities of the mixture of the softmax and what is copied. */
  function mix(logits, { tokens }, x) {
    const n = normalise(x);
    const q = query.product(n);
    const open = tokens.filter(({ id }) => id >= 0);
    const scores = open.map((token) => q.reduce((sum, number, j) => sum + number * token.key[j], 0) / Math.sqrt(q.length));
    const logOdds = gate.product(n, gateBias)[0];
    const shift = logSumExp(logits) + (open.length ? logSumExp([0, logOdds]) : 0);
    const mixed = Float64Array.from(logits, (logit) => logit - shift);
    const scale = logSumExp(scores) + logSumExp([0, -logOdds]);
    open.forEach(({ id }, token) => (mixed[id] = logSumExp([mixed[id], scores[token] - scale])));
    return Float32Array.from(mixed);
  }

  return { initial: { tokens: [], next: key.product(new Float32Array(weights.length)) }, append, mix };
}

function logSumExp(numbers) {
  const highest = numbers.reduce((one, other) => Math.max(one, other), -Infinity);
  return highest + Math.log(numbers.reduce((sum, number) => sum + Math.exp(number - highest), 0));
}

/**
 * Update the sum of a text's conditions and fields by one more id. Return the sum of their embeddings (E), the number of their ids,
 * and whether a field is open. The beginning of a text resets all three. See `reviewgen.protocols.inputs`.
 */
function hold({ vocab_size: end, bos_id: bos, condition_ids = 0, field_ids = 0, embedding_size: width }, table, held, id) {
  const [first, fields] = [end - field_ids - condition_ids, end - field_ids];
  if (id === bos) return { sum: new Float32Array(width), count: 0, isOpen: false };
  if (id < first && !held.isOpen) return held;
  const sum = held.sum.map((number, j) => number + table[id * width + j]);
  return { sum, count: held.count + 1, isOpen: id < first || (id >= fields && id < end - 1) };
}

function readLayer(tensors, layer) {
  const read = (kind) => tensors[`recurrent.${kind}_l${layer}`];
  const [input, hidden] = [read("weight_ih").matrix(), read("weight_hh").matrix()];
  return { input, hidden, inputBias: read("bias_ih").data, hiddenBias: read("bias_hh").data };
}

/** Return a function for the first layer's input (E) at a token: the sum of its embedding and those of the n-grams that it ends. */
function makeEmbedding({ embedding_size: width, ngram_buckets: buckets }, table, ngrams) {
  return (id, past) => {
    const x = table.slice(id * width, (id + 1) * width);
    let key = extendKey(0, id);
    past.toReversed().forEach((token, before) => {
      key = extendKey(key, token);
      const row = before * buckets + bucketOf(key, buckets);
      for (let j = 0; j < width; j++) x[j] += ngrams[row * width + j];
    });
    return x;
  };
}

/** Return the hash key (32 bits) of an n-gram, from the key of all tokens but the first, and the first token. */
function extendKey(key, token) {
  const mixed = Math.imul(key + token + 1, MULTIPLIER) >>> 0;
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** Return floor(key * buckets / 2^32). The product may have more than 53 bits, so it is a BigInt. */
const bucketOf = (key, buckets) => Number((BigInt(key) * BigInt(buckets)) >> 32n);

/** Advance h (H) of an rnn by one step. x is the input's product, y the state's product, each with its bias. */
function advanceRnn(x, y, h, c, activate, mix) {
  for (let j = 0; j < h.length; j++) h[j] = mix(h[j], activate(x[j] + y[j]));
}

/** Advance h (H) of a gru. x and y are as for the rnn, with the gates r, z, n one after another. */
function advanceGru(x, y, h, c, activate, mix) {
  const size = h.length;
  for (let j = 0; j < size; j++) {
    const r = sigmoid(x[j] + y[j]);
    const z = sigmoid(x[size + j] + y[size + j]);
    const n = activate(x[2 * size + j] + r * y[2 * size + j]);
    h[j] = mix(h[j], (1 - z) * n + z * h[j]);
  }
}

/** Advance h and c (H) of an lstm. x and y are as for the rnn, with the gates i, f, g, o one after another. */
function advanceLstm(x, y, h, c, activate, mix) {
  const [i, f, g, o] = [0, 1, 2, 3].map((gate) => gate * h.length);
  for (let j = 0; j < h.length; j++) {
    const fresh = sigmoid(x[f + j] + y[f + j]) * c[j] + sigmoid(x[i + j] + y[i + j]) * activate(x[g + j] + y[g + j]);
    c[j] = mix(c[j], fresh);
    h[j] = mix(h[j], sigmoid(x[o + j] + y[o + j]) * activate(fresh));
  }
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
