/**
 * The stepper of mingru and minlstm in JavaScript; its equations are those of `model.py`.
 *
 * One text at a time. Tensors arrive under their saved names, as `{shape, data}`. Shapes: V vocabulary, H hidden, L layers, K
 * tokens of the window.
 */

const EPSILON = 1e-6; // added to the mean square of a vector before its root is taken

/** Return the stepper of a model: `{initialState(), forward(ids, state)}`; the state is h (H) of each layer, and the last K ids. */
export default function createStepper(name, config, tensors) {
  const { hidden_size: size, vocab_size: vocabulary, window } = config;
  const update = name === "minlstm" ? updateMinLstm : updateMinGru;
  const layers = Array.from({ length: config.layers }, (_, layer) => (kind) => tensors[`layers.${layer}.${kind}`]);

  /** Return the sum of the embeddings of the last K tokens, the newest one first; each position has its own V+1 rows. */
  function embed(past) {
    const x = new Float32Array(size);
    const table = tensors["embedding.weight"].data;
    past.toReversed().forEach((id, position) => {
      const start = (position * (vocabulary + 1) + id) * size;
      for (let j = 0; j < size; j++) x[j] += table[start + j];
    });
    return x;
  }

  /** Feed a token to the layers, whose h is overwritten, and return the last one's output. */
  function step(h, past) {
    const x = embed(past);
    layers.forEach((read, layer) => {
      const gates = read("gates.bias").data.slice();
      update(addProduct(read("gates.weight"), normalise(x, read("norm.weight")), gates), h[layer]);
      addProduct(read("mix.weight"), h[layer], x);
    });
    return x;
  }

  function forward(ids, state) {
    const h = state.h.map((part) => part.slice());
    let past = state.past;
    let x;
    for (const id of ids) {
      past = [...past.slice(1), id];
      x = step(h, past);
    }
    const normed = normalise(x, tensors["norm.weight"]);
    return { logits: addProduct(tensors["output.weight"], normed, tensors["output.bias"].data.slice()), state: { h, past } };
  }

  const initialState = () => ({ h: layers.map(() => new Float32Array(size)), past: new Array(window).fill(vocabulary) });
  return { initialState, forward };
}

/** Advance h (H) by the gates z and c: h = (1 - z) h + z c. */
function updateMinGru(gates, h) {
  for (let j = 0; j < h.length; j++) {
    const z = sigmoid(gates[j]);
    h[j] += z * (gates[h.length + j] - h[j]);
  }
}

/** Advance h (H) by the gates f, i and c, of which f and i are divided by their sum: a difference of logs, which never is 0 / 0. */
function updateMinLstm(gates, h) {
  for (let j = 0; j < h.length; j++) {
    const kept = sigmoid(softplus(-gates[h.length + j]) - softplus(-gates[j]));
    h[j] += (1 - kept) * (gates[2 * h.length + j] - h[j]);
  }
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** Return log(1 + e^x) without overflow. */
function softplus(x) {
  return Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x)));
}

/** Return a vector divided by its root mean square, and scaled. */
function normalise(x, { data: scales }) {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value, j) => (value / Math.sqrt(meanSquare + EPSILON)) * scales[j]);
}

/** Add the product of a matrix and a vector to `sums`, and return it. Four rows at a time: a vector's number is read once. */
function addProduct({ shape: [rows, columns], data }, vector, sums) {
  for (let row = 0; row < rows; row += 4) {
    const [p0, p1, p2, p3] = [0, 1, 2, 3].map((next) => Math.min(row + next, rows - 1) * columns);
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (let k = 0; k < columns; k++) {
      const x = vector[k];
      s0 += data[p0 + k] * x;
      s1 += data[p1 + k] * x;
      s2 += data[p2 + k] * x;
      s3 += data[p3 + k] * x;
    }
    sums[row] += s0; // an index beyond the end of a typed array is ignored
    sums[row + 1] += s1;
    sums[row + 2] += s2;
    sums[row + 3] += s3;
  }
  return sums;
}
