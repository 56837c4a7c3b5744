/**
 * The stepper of nnlm in JavaScript; its equations are those of `model.py`.
 *
 * One text at a time. Tensors arrive under their saved names, as `{shape, data}`. Shapes: V vocabulary, E embedding, H hidden,
 * n order.
 */

const PANEL = 8; // outputs that are summed up together: as many as stay in registers

/** Return the stepper of a model: `{initialState(), forward(ids, state)}`; the state is the last n-1 ids, V before the beginning. */
export default function createStepper(name, config, tensors) {
  const { order, vocab_size: vocabulary, embedding_size: width } = config;
  const table = tensors["embedding.weight"].data;
  const hidden = packMatrix(tensors["hidden.weight"]);
  const output = packMatrix(tensors["output.weight"]);
  const activate = config.activation === "relu" ? (x) => Math.max(0, x) : Math.tanh;

  function computeLogits(seen) {
    const window = new Float32Array(seen.length * width);
    seen.forEach((id, position) => window.set(table.subarray(id * width, (id + 1) * width), position * width));
    const h = addProduct(hidden, window, Float32Array.from(tensors["hidden.bias"].data)).map(activate);
    return addProduct(output, h, Float32Array.from(tensors["output.bias"].data));
  }

  function forward(ids, state) {
    const seen = [...state, ...ids].slice(1 - order);
    return { logits: computeLogits(seen), state: seen };
  }

  return { initialState: () => new Array(order - 1).fill(vocabulary), forward };
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
