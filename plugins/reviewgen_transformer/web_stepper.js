/**
 * The stepper of the transformer in JavaScript; its equations are those of `network.py`.
 *
 * One text at a time. Shapes: V vocabulary, H hidden, L layers, N heads, G key/value heads, D dimensions of a head, F feed-forward,
 * W window, K tokens before the last one that n-grams look at.
 */

const MULTIPLIER = 0x9e3779b1; // used by the hash of n-grams, as in `kernels.py`

/**
 * Return the stepper of a model: `{initialState(), forward(ids, state)}`.
 * The state has the rotated keys (G D) and the values (G D) of the last W tokens of each layer, oldest first; the number of the
 * text's tokens; the last K ids; and the sum of the embeddings of the text's conditions and fields. Divided by the root of the number of their
 * ids and multiplied by a matrix, this sum is added to the input of the first layer.
 */
export default function createStepper(name, config, tensors) {
  const { hidden_size: size, heads, window, ngrams = 1 } = config;
  const layers = Array.from({ length: config.layers }, (_, layer) => readLayer(config, tensors, layer));
  const table = tensors["embedding.weight"].data;
  const embed = makeEmbedding(config, table, tensors["ngrams.table.weight"]?.data);
  const shift = tensors.held?.matrix();
  const output = tensors["embedding.weight"].matrix();
  const frequencies = Float64Array.from({ length: size / heads / 2 }, (_, j) => config.rope_theta ** ((-2 * j * heads) / size));
  const norm = makeNorm(config, tensors["norm.weight"].data);

  function initialState() {
    const caches = layers.map(() => ({ keys: [], values: [] }));
    const past = new Array(ngrams - 1).fill(config.vocab_size);
    return { caches, count: 0, past, held: hold(config, table, null, config.bos_id) };
  }

  function forward(ids, { caches, count, past, held }) {
    let x, attention;
    for (const id of ids) {
      if (id === config.bos_id) ({ caches, count } = initialState()); // a text does not attend to the last one
      held = hold(config, table, held, id);
      x = embed(id, past);
      if (shift) shift.addProduct(held.sum.map((number) => number / Math.sqrt(Math.max(1, held.count))), x);
      past = [...past, id].slice(1);
      const rotations = frequencies.map((frequency) => frequency * count);
      const rotate = makeRotation(rotations.map(Math.cos), rotations.map(Math.sin));
      attention = []; // of the last id: the weights of each head, layer by layer
      caches = layers.map((layer, l) => {
        const n = layer.attentionNorm(x);
        const keys = [...caches[l].keys, rotate(layer.key.product(n))].slice(-window);
        const values = [...caches[l].values, layer.value.product(n)].slice(-window);
        const { read, weights } = attend(config, rotate(layer.query.product(n)), keys, values);
        layer.mix.addProduct(read, x);
        const m = layer.feedForwardNorm(x);
        const up = layer.up.product(m);
        layer.down.addProduct(layer.gate.product(m).map((gate, j) => (gate / (1 + Math.exp(-gate))) * up[j]), x);
        attention.push(weights);
        return { keys, values };
      });
      count += 1;
    }
    return { logits: output.product(norm(x)), state: { caches, count, past, held }, attention };
  }

  return { initialState, forward };
}

function readLayer(config, tensors, layer) {
  const read = (part) => tensors[`layers.${layer}.${part}.weight`];
  const [query, key, value, mix] = ["q", "k", "v", "o"].map((kind) => read(`self_attn.${kind}_proj`).matrix());
  const [gate, up, down] = ["gate", "up", "down"].map((kind) => read(`mlp.${kind}_proj`).matrix());
  const norms = ["input_layernorm", "post_attention_layernorm"].map((part) => makeNorm(config, read(part).data));
  return { query, key, value, mix, gate, up, down, attentionNorm: norms[0], feedForwardNorm: norms[1] };
}

/** Return a function that divides a vector (H) by the root of its mean square, and multiplies it by weights (H). */
function makeNorm({ rms_norm_eps: epsilon }, weights) {
  return (x) => {
    const square = x.reduce((sum, number) => sum + number * number, 0) / x.length;
    const scale = 1 / Math.sqrt(square + epsilon);
    return x.map((number, j) => number * scale * weights[j]);
  };
}

/** Return a function that rotates heads side by side: dimension j of a head together with dimension j + D / 2. */
function makeRotation(cosine, sine) {
  const half = cosine.length;
  return (heads) =>
    heads.map((number, place) => {
      const j = place % half;
      const isFirst = place % (2 * half) < half;
      return number * cosine[j] + (isFirst ? -heads[place + half] : heads[place - half]) * sine[j];
    });
}

/** Return what the heads read (H) with a query (H), and the weights of each head: the softmax of its scores. */
function attend({ hidden_size: size, heads, key_value_heads: groups }, query, keys, values) {
  const width = size / heads;
  const shared = heads / (groups ?? heads); // heads that read the same keys
  const read = new Float32Array(size);
  const weights = Array.from({ length: heads }, (_, head) => {
    const [start, from] = [head * width, Math.floor(head / shared) * width];
    const scores = Float64Array.from(keys, (key) => {
      let sum = 0;
      for (let j = 0; j < width; j++) sum += query[start + j] * key[from + j];
      return sum / Math.sqrt(width);
    });
    const highest = scores.reduce((one, other) => Math.max(one, other));
    const powers = scores.map((score) => Math.exp(score - highest));
    const total = powers.reduce((sum, power) => sum + power);
    const shares = Float32Array.from(powers, (power) => power / total);
    shares.forEach((share, token) => {
      for (let j = 0; j < width; j++) read[start + j] += share * values[token][from + j];
    });
    return shares;
  });
  return { read, weights };
}

/**
 * Update the sum of a text's conditions and fields by one more id. Return the sum of their embeddings (H), the number of their ids,
 * and whether a field is open. The beginning of a text resets all three. See `reviewgen.protocols.inputs`.
 */
function hold({ vocab_size: end, bos_id: bos, condition_ids = 0, field_ids = 0, hidden_size: width }, table, held, id) {
  const [first, fields] = [end - field_ids - condition_ids, end - field_ids];
  if (id === bos) return { sum: new Float32Array(width), count: 0, isOpen: false };
  if (id < first && !held.isOpen) return held;
  const sum = held.sum.map((number, j) => number + table[id * width + j]);
  return { sum, count: held.count + 1, isOpen: id < first || (id >= fields && id < end - 1) };
}

/** Return a function for the first layer's input (H) at a token: the sum of its embedding and those of the n-grams that it ends. */
function makeEmbedding({ hidden_size: width, ngram_buckets: buckets }, table, ngrams) {
  return (id, past) => {
    const x = table.slice(id * width, (id + 1) * width);
    let key = extendKey(0, id);
    past.toReversed().forEach((token, before) => {
      key = extendKey(key, token);
      const row = before * buckets + bucketOf(key, buckets);
      for (let j = 0; j < width; j++) x[j] += ngrams[row * width + j];
    });
    return x;
  };
}

/** Return the hash key (32 bits) of an n-gram, from the key of all tokens but the first, and the first token. */
function extendKey(key, token) {
  const mixed = Math.imul(key + token + 1, MULTIPLIER) >>> 0;
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** Return floor(key * buckets / 2^32). The product may have more than 53 bits, so it is a BigInt. */
const bucketOf = (key, buckets) => Number((BigInt(key) * BigInt(buckets)) >> 32n);
