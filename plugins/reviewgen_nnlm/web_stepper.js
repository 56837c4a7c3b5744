/**
 * The stepper of nnlm in JavaScript; its equations are those of `model.py`.
 *
 * One text at a time. Shapes: V vocabulary, E embedding, H hidden, n order.
 */

/**
 * Return the stepper of a model: `{initialState(), forward(ids, state)}`.
 * The state has the last n-1 ids (V for each position before the text) and the sum of the embeddings of the text's conditions and
 * fields. Divided by the root of the number of their ids and multiplied by a matrix, this sum is added to the hidden layer's input.
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
