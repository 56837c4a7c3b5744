/**
 * The stepper of mingru and minlstm in JavaScript; its equations are those of `model.py`.
 *
 * One text at a time. Shapes: V vocabulary, H hidden, L layers, K tokens of the window.
 */

const EPSILON = 1e-6; // added to the mean square of a vector before its root is taken

/** Return the stepper of a model: `{initialState(), forward(ids, state)}`; the state is h (H) of each layer, and K ids. */
export default function createStepper(name, config, tensors) {
  const { hidden_size: size, vocab_size: vocabulary, window } = config;
  const update = name === "minlstm" ? updateMinLstm : updateMinGru;
  const data = (key) => tensors[key].data;
  const layers = Array.from({ length: config.layers }, (_, layer) => {
    const key = (kind) => `layers.${layer}.${kind}`;
    const [gates, mix] = [tensors[key("gates.weight")].matrix(), tensors[key("mix.weight")].matrix()];
    return { gates, mix, bias: data(key("gates.bias")), norm: data(key("norm.weight")) };
  });
  const output = tensors["output.weight"].matrix();

  /** Return the sum of the embeddings of the last K tokens, the newest one first; each position has its own V+1 rows. */
  function embed(past) {
    const x = new Float32Array(size);
    past.toReversed().forEach((id, position) => {
      const start = (position * (vocabulary + 1) + id) * size;
      for (let j = 0; j < size; j++) x[j] += data("embedding.weight")[start + j];
    });
    return x;
  }

  function forward(ids, state) {
    const h = state.h.map((part) => part.slice());
    let { past } = state;
    let x;
    for (const id of ids) {
      past = [...past.slice(1), id];
      x = embed(past);
      layers.forEach(({ gates, mix, bias, norm }, layer) => {
        update(gates.product(normalise(x, norm), bias), h[layer]);
        mix.addProduct(h[layer], x);
      });
    }
    return { logits: output.product(normalise(x, data("norm.weight")), data("output.bias")), state: { h, past } };
  }

  const initialState = () => ({ h: layers.map(() => new Float32Array(size)), past: new Array(window).fill(vocabulary) });
  return { initialState, forward };
}

/** Advance h (H) by the gates z and c: h = (1 - z) h + z c. */
function updateMinGru(gates, h) {
  for (let j = 0; j < h.length; j++) h[j] += sigmoid(gates[j]) * (gates[h.length + j] - h[j]);
}

/** Advance h (H) by the gates f, i and c; f and i are divided by their sum: a difference of logs, which never is 0 / 0. */
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
function normalise(x, scales) {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value, j) => (value / Math.sqrt(meanSquare + EPSILON)) * scales[j]);
}
