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

/** Return a stepper. `sources`: of each model's file and of tensors.js; `buffer`: tensors, at the offsets in `model.tensors`. */
export async function makeStepper(sources, model, buffer) {
  const modules = {};
  for (const [name, source] of Object.entries(sources)) modules[name] = await importSource(source);
  const create = (name, config, tensors) => modules[name].default(name, config, tensors, create);
  const started = performance.now();
  const stepper = create(model.name, model.config, readTensors(model.tensors, buffer, modules["tensors.js"]));
  return { stepper, milliseconds: performance.now() - started };
}

/**
 * Run a model on a request: `texts` in pieces, whose logits are returned one after another; `proposals`, a `greedy` continuation
 * and the `speed`, each if it is asked for.
 */
export async function run(sources, model, buffer, { texts = [], proposals, greedy, speed }) {
  const { stepper, milliseconds } = await makeStepper(sources, model, buffer);
  const logits = feed(stepper, texts);
  return {
    logits: join(logits),
    answer: {
      milliseconds,
      proposed: proposals && proposeAfter(stepper, proposals.texts, proposals.numbers),
      greedy: greedy && continueGreedily(stepper, greedy.prompt, greedy.count),
      tokensPerSecond: speed && measureSpeed(stepper, speed.prompt, speed.bursts, speed.tokens),
    },
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

/** Return the most probable continuation of a prompt. */
function continueGreedily(stepper, prompt, count) {
  let { logits, state } = stepper.forward(prompt, stepper.initialState());
  const ids = [];
  while (ids.length < count) {
    ids.push(logits.indexOf(logits.reduce((largest, logit) => Math.max(largest, logit))));
    ({ logits, state } = stepper.forward([ids.at(-1)], state));
  }
  return ids;
}

/** Return the tokens a second of sampling at temperature 1, in the best of some bursts. */
function measureSpeed(stepper, prompt, bursts, tokens) {
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
  let largest = -Infinity;
  for (const logit of logits) largest = Math.max(largest, logit);
  const probabilities = new Float64Array(logits.length);
  let total = 0;
  for (let id = 0; id < logits.length; id++) total += probabilities[id] = Math.exp(logits[id] - largest);
  let left = Math.random() * total;
  let id = 0;
  while (id < logits.length - 1 && left >= probabilities[id]) left -= probabilities[id++];
  return id;
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
