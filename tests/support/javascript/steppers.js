/** Runs a web stepper on token ids, for tests in Node. */

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  uint8: Uint8Array,
  int8: Int8Array,
};

/** Return a stepper. `sources`: of each model's file and of tensors.js; `buffer`: tensors, at the offsets in `model.tensors`. */
export async function makeStepper(sources, model, buffer) {
  const modules = {};
  for (const [name, source] of Object.entries(sources)) modules[name] = await importSource(source);
  const create = (name, config, tensors) => modules[name].default(name, config, tensors, create);
  return create(model.name, model.config, readTensors(model.tensors, buffer, modules["tensors.js"]));
}

/** Run a model: `texts` in pieces, whose logits are returned; `proposals`, if they are asked for. */
export async function run(sources, model, buffer, { texts = [], proposals }) {
  const stepper = await makeStepper(sources, model, buffer);
  const logits = feed(stepper, texts);
  return {
    logits: join(logits),
    answer: { proposed: proposals && proposeAfter(stepper, proposals.texts, proposals.numbers) },
  };
}

/** Return the logits after each piece of each text. */
function feed(stepper, texts) {
  return texts.flatMap((pieces) => {
    let state = stepper.initialState();
    return pieces.map((ids) => {
      const step = stepper.forward(ids, state);
      state = step.state;
      return step.logits;
    });
  });
}

function join(rows) {
  const joined = new Float64Array(rows.length * (rows[0]?.length ?? 0));
  rows.forEach((row, number) => joined.set(row, number * row.length));
  return joined;
}

/** Return the token and the probability that a stepper proposes after each text, with a random number each. */
function proposeAfter(stepper, texts, numbers) {
  return texts.map((ids, row) => {
    const { state } = stepper.forward(ids, stepper.initialState());
    const { token, probability } = stepper.propose(state, numbers[row]) ?? { token: -1, probability: 0 };
    return [token, probability];
  });
}

function readTensors(tensors, buffer, { createTensor }) {
  const read = ({ dtype, shape, offset }) => {
    const length = shape.reduce((a, b) => a * b, 1);
    return createTensor(shape, new ARRAYS[dtype](buffer, offset, length));
  };
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, read(tensor)]));
}

/** Import a module that imports nothing, from its source. */
function importSource(source) {
  return import(`data:text/javascript,${encodeURIComponent(source)}`);
}
