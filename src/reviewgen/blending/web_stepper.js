/**
 * The stepper of a blend in JavaScript. It mixes the distributions of the blend's parts, weighted as in `compiled/mixing.py`. If
 * the config of the last part has `expert: true`, this mixture of the others is its expert, the third argument of `forward`, which
 * gets one id at a time.
 * The names of the tensors of part 0 have the prefix "0.". Shapes: M parts, V vocabulary.
 */

const SMALLEST = 1e-300; // a sum of probabilities below this may have lost digits

/** Return the stepper of a blend: `{initialState(), forward(ids, state)}`. Its logits are log probabilities. */
export default function createStepper(name, config, tensors, createPart) {
  const parts = config.models.map((part, number) => createPart(part.name, part.config, tensorsOf(tensors, number)));
  const gate = config.gate?.coefficients;
  const last = config.models.at(-1).config.expert === true ? parts.at(-1) : null;
  const averaged = last ? parts.slice(0, -1) : parts;

  function average(ids, state) {
    const steps = averaged.map((part, number) => part.forward(ids, state[number]));
    const distributions = steps.map((step) => softmax(step.logits));
    const weights = gate ? weigh(config.weights, gate, distributions.map(({ entropy }) => entropy)) : config.weights;
    return { logits: mix(distributions, weights), state: steps.map((step) => step.state) };
  }

  function readToken({ state }, id) {
    const mixed = average([id], state);
    const own = last.forward([id], state.at(-1), mixed.logits);
    return { logits: own.logits, state: [...mixed.state, own.state] };
  }

  const forward = last ? (ids, state) => ids.reduce(readToken, { state }) : average;
  return { initialState: () => parts.map((part) => part.initialState()), forward };
}

/** Return the tensors of a part, by their names without the prefix. */
function tensorsOf(tensors, number) {
  const prefix = `${number}.`;
  const own = Object.entries(tensors).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}

/** Return the distribution of logits: unnormalised probabilities (V), their sum, its log plus the largest logit, the entropy. */
function softmax(logits) {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  const probabilities = new Float64Array(logits).map((logit) => Math.exp(logit - largest));
  let [total, mean] = [0, 0];
  probabilities.forEach((p, id) => {
    total += p;
    if (p > 0) mean += p * (logits[id] - largest);
  });
  return { logits, probabilities, total, logTotal: largest + Math.log(total), entropy: Math.log(total) - mean / total };
}

/** Return the weights (M): the fixed weights times the exponential of the gate's function of the entropies, scaled to sum to one. */
function weigh(prior, gate, entropies) {
  const scores = gate.map((coefficients) => score(coefficients, entropies));
  const largest = Math.max(...scores);
  const weights = scores.map((value, part) => prior[part] * Math.exp(value - largest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** Return the value of a quadratic function. It has a coefficient for 1, for each entropy, and for each product of two entropies. */
function score(coefficients, entropies) {
  const factors = [1, ...entropies];
  const pairs = factors.flatMap((one, number) => factors.slice(number).map((other) => [one, other]));
  return pairs.reduce((sum, [one, other], place) => sum + coefficients[place] * one * other, 0);
}

/** Return the logs (V) of the weighted sum of distributions. */
function mix(distributions, weights) {
  const mixed = new Float64Array(distributions[0].probabilities.length);
  distributions.forEach(({ probabilities, total }, part) => {
    const factor = weights[part] / total;
    for (let id = 0; id < mixed.length; id++) mixed[id] += factor * probabilities[id];
  });
  for (let id = 0; id < mixed.length; id++) {
    mixed[id] = mixed[id] > SMALLEST ? Math.log(mixed[id]) : mixLogs(distributions, weights, id);
  }
  return mixed;
}

/** Return the log probability of one id, computed from logs because its probability is very small; -Infinity if it is zero. */
function mixLogs(distributions, weights, id) {
  const logs = distributions.map(({ logits, logTotal }, part) => Math.log(weights[part]) + logits[id] - logTotal);
  const largest = Math.max(...logs);
  if (largest === -Infinity) return largest;
  return largest + Math.log(logs.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}
