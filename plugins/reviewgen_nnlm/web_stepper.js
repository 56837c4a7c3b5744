/**
 * The stepper of nnlm in JavaScript; its equations are those of `model.py`.
 *
 * One text at a time. Shapes: V vocabulary, E embedding, H hidden, n order.
 */

/** Return the stepper of a model: `{initialState(), forward(ids, state)}`; the state is the last n-1 ids, V before the first. */
export default function createStepper(name, config, tensors) {
  const { order, vocab_size: vocabulary, embedding_size: width } = config;
  const table = tensors["embedding.weight"].data;
  const [hidden, output] = [tensors["hidden.weight"].matrix(), tensors["output.weight"].matrix()];
  const activate = config.activation === "relu" ? (x) => Math.max(0, x) : Math.tanh;

  function forward(ids, state) {
    const seen = [...state, ...ids].slice(1 - order);
    const window = new Float32Array(seen.length * width);
    seen.forEach((id, position) => window.set(table.subarray(id * width, (id + 1) * width), position * width));
    const h = hidden.product(window, tensors["hidden.bias"].data).map(activate);
    return { logits: output.product(h, tensors["output.bias"].data), state: seen };
  }

  return { initialState: () => new Array(order - 1).fill(vocabulary), forward };
}
