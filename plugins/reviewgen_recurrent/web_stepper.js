/**
 * The stepper of rnn, gru and lstm in JavaScript; its equations are those of `rnn.py`, `gru.py` and `lstm.py`.
 *
 * One text at a time. Tensors arrive under their saved names, as `{shape, data}`. Shapes: V vocabulary, E embedding, H hidden,
 * L layers, K tokens before the last one that n-grams look at.
 */

const PANEL = 8; // outputs that are summed up together: as many as stay in registers
const MULTIPLIER = 0x9e3779b1; // of the hash, as in `kernels.py`

const CELLS = { rnn: advanceRnn, gru: advanceGru, lstm: advanceLstm };

/** Return the stepper of a model: `{initialState(), forward(ids, state)}`. */
export default function createStepper(name, config, tensors) {
  const advance = CELLS[name];
  const layers = Array.from({ length: config.layers }, (_, layer) => readLayer(tensors, layer));
  const embed = makeEmbedding(config, tensors);
  const computeLogits = makeOutput(config, tensors);
  const activate = config.activation === "relu" ? (x) => Math.max(0, x) : Math.tanh;
  const zoneout = config.zoneout ?? 0;

  function initialState() {
    const zeros = () => layers.map(() => new Float32Array(config.hidden_size));
    return { h: zeros(), c: zeros(), past: new Array((config.ngrams ?? 1) - 1).fill(config.vocab_size) };
  }

  function forward(ids, state) {
    const next = { h: state.h.map((h) => h.slice()), c: state.c.map((c) => c.slice()), past: state.past.slice() };
    for (const id of ids) {
      let x = embed(id, next.past);
      next.past.push(id);
      next.past.shift();
      layers.forEach((layer, l) => {
        advance(layer, x, next.h[l], next.c[l], activate, zoneout);
        x = next.h[l];
      });
    }
    return { logits: computeLogits(next.h.at(-1)), state: next };
  }

  return { initialState, forward };
}

function readLayer(tensors, layer) {
  const read = (kind) => tensors[`recurrent.${kind}_l${layer}`];
  return {
    input: packMatrix(read("weight_ih")),
    hidden: packMatrix(read("weight_hh")),
    inputBias: read("bias_ih").data,
    hiddenBias: read("bias_hh").data,
  };
}

/** Return a function that returns the first layer's input (E) at a token: its embedding, and those of the n-grams it ends. */
function makeEmbedding(config, tensors) {
  const { embedding_size: width, ngram_buckets: buckets } = config;
  const table = tensors["embedding.weight"].data;
  const ngrams = tensors["ngrams.table.weight"]?.data;
  return function embed(id, past) {
    const x = Float32Array.from(table.subarray(id * width, (id + 1) * width));
    let key = extendKey(0, id);
    for (let before = 0; before < past.length; before++) {
      key = extendKey(key, past[past.length - 1 - before]);
      const row = before * buckets + bucketOf(key, buckets);
      for (let j = 0; j < width; j++) x[j] += ngrams[row * width + j];
    }
    return x;
  };
}

/** Return the hash key, 32 bits, of an n-gram from its first token and the key of the tokens after it. */
function extendKey(key, token) {
  const mixed = Math.imul(key + token + 1, MULTIPLIER) >>> 0;
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** Return floor(key * buckets / 2^32); in two halves, since the product may have more than 53 bits. */
function bucketOf(key, buckets) {
  const low = Math.floor(((key & 0xffff) * buckets) / 65536);
  return Math.floor(((key >>> 16) * buckets + low) / 65536);
}

/** Return a function that returns the logits (V) of the last layer's h: the tied output is the embedding, with a projection if H is not E. */
function makeOutput(config, tensors) {
  const output = packMatrix(config.tied ? tensors["embedding.weight"] : tensors["output.weight"]);
  const bias = tensors["output.bias"].data;
  const projection = tensors["output.projection.weight"] && packMatrix(tensors["output.projection.weight"]);
  return function computeLogits(h) {
    const logits = Float32Array.from(bias);
    addProduct(output, projection ? addProduct(projection, h, new Float32Array(projection.rows)) : h, logits);
    return logits;
  };
}

/** Advance h (H) by a token whose input is x. */
function advanceRnn(layer, x, h, c, activate, zoneout) {
  const sums = addProduct(layer.input, x, Float32Array.from(layer.inputBias));
  const hidden = addProduct(layer.hidden, h, Float32Array.from(layer.hiddenBias));
  for (let j = 0; j < h.length; j++) h[j] = zoneOut(h[j], activate(sums[j] + hidden[j]), zoneout);
}

/** The same of a gru; the rows of its matrices are the gates r, z, n. */
function advanceGru(layer, x, h, c, activate, zoneout) {
  const size = h.length;
  const sums = addProduct(layer.input, x, Float32Array.from(layer.inputBias));
  const hidden = addProduct(layer.hidden, h, Float32Array.from(layer.hiddenBias));
  for (let j = 0; j < size; j++) {
    const r = sigmoid(sums[j] + hidden[j]);
    const z = sigmoid(sums[size + j] + hidden[size + j]);
    const n = activate(sums[2 * size + j] + r * hidden[2 * size + j]);
    h[j] = zoneOut(h[j], (1 - z) * n + z * h[j], zoneout);
  }
}

/** The same of an lstm, with its memory c (H); the rows of its matrices are the gates i, f, g, o. */
function advanceLstm(layer, x, h, c, activate, zoneout) {
  const size = h.length;
  const gates = addProduct(layer.input, x, Float32Array.from(layer.inputBias));
  addProduct(layer.hidden, h, gates);
  for (let j = 0; j < gates.length; j++) gates[j] += layer.hiddenBias[j];
  for (let j = 0; j < size; j++) {
    const fresh = sigmoid(gates[size + j]) * c[j] + sigmoid(gates[j]) * activate(gates[2 * size + j]);
    c[j] = zoneOut(c[j], fresh, zoneout);
    h[j] = zoneOut(h[j], sigmoid(gates[3 * size + j]) * activate(fresh), zoneout);
  }
}

/** Return the expected value of a unit that keeps its old value with probability `zoneout`. */
function zoneOut(old, fresh, zoneout) {
  return zoneout * old + (1 - zoneout) * fresh;
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** Return a matrix in panels of 8 rows, column by column, padded with zeros: products then read weights in the order in memory. */
function packMatrix({ shape: [rows, columns], data }) {
  const panels = new Float32Array(Math.ceil(rows / PANEL) * PANEL * columns);
  for (let row = 0; row < rows; row++) {
    let place = (row - (row % PANEL)) * columns + (row % PANEL);
    for (let k = 0; k < columns; k++, place += PANEL) panels[place] = data[row * columns + k];
  }
  return { rows, columns, panels };
}

/** Add the product of a packed matrix and a vector to `sums`, and return it. */
function addProduct({ rows, columns, panels }, vector, sums) {
  for (let row = 0, place = 0; row < rows; row += PANEL) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
    for (let k = 0; k < columns; k++, place += PANEL) {
      const x = vector[k];
      s0 += panels[place] * x;
      s1 += panels[place + 1] * x;
      s2 += panels[place + 2] * x;
      s3 += panels[place + 3] * x;
      s4 += panels[place + 4] * x;
      s5 += panels[place + 5] * x;
      s6 += panels[place + 6] * x;
      s7 += panels[place + 7] * x;
    }
    sums[row] += s0; // an index beyond the end of a typed array is ignored
    sums[row + 1] += s1;
    sums[row + 2] += s2;
    sums[row + 3] += s3;
    sums[row + 4] += s4;
    sums[row + 5] += s5;
    sums[row + 6] += s6;
    sums[row + 7] += s7;
  }
  return sums;
}
