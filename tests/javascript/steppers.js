/** Runs a web stepper on token ids, for tests and benchmarks; in Node and in a browser alike. */

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  uint8: Uint8Array,
  int8: Int8Array,
};

/** Return a stepper. `sources`: the source of each model's file; `buffer`: all tensors, at the offsets in `model.tensors`. */
export async function makeStepper(sources, model, buffer) {
  const factories = {};
  for (const [name, source] of Object.entries(sources)) factories[name] = (await importSource(source)).default;
  const create = (name, config, tensors) => factories[name](name, config, tensors, create);
  const started = performance.now();
  const stepper = create(model.name, model.config, readTensors(model.tensors, buffer));
  return { stepper, milliseconds: performance.now() - started };
}

/** Return the logits after each piece of each text. */
export function feed(stepper, texts) {
  return texts.flatMap((pieces) => {
    let state = stepper.initialState();
    return pieces.map((ids) => {
      const step = stepper.forward(ids, state);
      state = step.state;
      return step.logits;
    });
  });
}

/** Return the most probable continuation of a prompt. */
export function continueGreedily(stepper, prompt, count) {
  let { logits, state } = stepper.forward(prompt, stepper.initialState());
  const ids = [];
  while (ids.length < count) {
    ids.push(logits.indexOf(logits.reduce((largest, logit) => Math.max(largest, logit))));
    ({ logits, state } = stepper.forward([ids.at(-1)], state));
  }
  return ids;
}

/** Return the tokens a second of sampling at temperature 1, in the best of some bursts. */
export function measureSpeed(stepper, prompt, bursts, tokens) {
  let best = 0;
  for (let burst = 0; burst < bursts; burst++) {
    let { logits, state } = stepper.forward(prompt, stepper.initialState());
    const started = performance.now();
    for (let count = 0; count < tokens; count++) ({ logits, state } = stepper.forward([draw(logits)], state));
    best = Math.max(best, (1000 * tokens) / (performance.now() - started));
  }
  return best;
}

function draw(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const probabilities = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  let left = Math.random() * probabilities.reduce((a, b) => a + b, 0);
  const id = probabilities.findIndex((p) => (left -= p) < 0);
  return id < 0 ? logits.indexOf(largest) : id;
}

function readTensors(tensors, buffer) {
  const read = ({ dtype, shape, offset }) => {
    const length = shape.reduce((a, b) => a * b, 1);
    return { shape, data: new ARRAYS[dtype](buffer, offset, length) };
  };
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, read(tensor)]));
}

/** Import a module that imports nothing, from its source. */
function importSource(source) {
  return import(`data:text/javascript,${encodeURIComponent(source)}`);
}
