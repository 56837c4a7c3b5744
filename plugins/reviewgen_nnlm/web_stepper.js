/**
 * The stepper of nnlm in JavaScript; its equations are those of `model.py`.
 *
 * One text at a time. Shapes: V vocabulary, E embedding, H hidden, n order.
 */

/**
 * Return the stepper of a model: `{initialState(), forward(ids, state)}`; the state is the last n-1 ids, V before the first, and what
 * the text is given, whose product with a matrix is added to the hidden layer's input.
 */
export default function createStepper(name, config, tensors) {
  const { order, vocab_size: vocabulary, embedding_size: width } = config;
  const table = tensors["embedding.weight"].data;
  const [hidden, output] = [tensors["hidden.weight"].matrix(), tensors["output.weight"].matrix()];
  const activate = config.activation === "relu" ? (x) => Math.max(0, x) : Math.tanh;
  const [shift, bias] = [tensors["held"]?.matrix(), tensors["hidden.bias"].data];

  function forward(ids, state) {
    const seen = [...state.seen, ...ids].slice(1 - order);
    const held = ids.reduce((before, id) => hold(config, table, before, id), state.held);
    const window = new Float32Array(seen.length * width);
    seen.forEach((id, position) => window.set(table.subarray(id * width, (id + 1) * width), position * width));
    const given = held.sum.map((number) => number / Math.sqrt(Math.max(1, held.count)));
    const h = hidden.product(window, shift ? shift.product(given, bias) : bias).map(activate);
    return { logits: output.product(h, tensors["output.bias"].data), state: { seen, held } };
  }

  const initialState = () => ({ seen: new Array(order - 1).fill(vocabulary), held: hold(config, table, null, config.bos_id) });
  return { initialState, forward };
}

/**
 * Return what is held of the ids that a text is given, after one more id: the sum of their embeddings (E), their number, and
 * whether a field is open; nothing of it is left at the beginning of a text. See `reviewgen.protocols.inputs`.
 */
function hold({ vocab_size: end, bos_id: bos, condition_ids = 0, field_ids = 0, embedding_size: width }, table, held, id) {
  const [first, fields] = [end - field_ids - condition_ids, end - field_ids];
  if (id === bos) return { sum: new Float32Array(width), count: 0, isOpen: false };
  if (id < first && !held.isOpen) return held;
  const sum = held.sum.map((number, j) => number + table[id * width + j]);
  return { sum, count: held.count + 1, isOpen: id < first || (id >= fields && id < end - 1) };
}
