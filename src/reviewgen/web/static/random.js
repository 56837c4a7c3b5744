/**
 * The random stream of a text: the numbers that numpy's `default_rng((seed, number)).random()` returns, bit for bit.
 *
 * SeedSequence (O'Neill 2015, "Developing a seed_seq alternative") hashes the words of seed and number into the state of a
 * PCG64 (O'Neill 2014: a linear congruential generator of 128 bits with the output permutation XSL-RR). A number in [0, 1) is
 * the upper 53 bits of an output.
 */

const MASK_32 = 0xffffffffn;
const MASK_64 = 0xffffffffffffffffn;
const MASK_128 = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const POOL_SIZE = 4; // words of 32 bits

/**
 * Returns the random stream of a text.
 * @param {bigint|number|string} seed A whole number of at least 0, of any size; a number only up to 2 ** 53.
 * @param {number} number The number of the text in its call.
 */
export function createRandom(seed, number) {
  const state = createState(seed, number);
  const waiting = [];
  return {
    /** Returns the next `count` numbers in [0, 1) without using them up. */
    peek(count) {
      while (waiting.length < count) waiting.push(nextDouble(state));
      return waiting.slice(0, count);
    },
    /** Drops numbers that were used. */
    use(count) {
      waiting.splice(0, count);
    },
  };
}

/** Returns the state of a seeded PCG64: `value` and `increment`, both of 128 bits. */
function createState(seed, number) {
  const words = generateWords(hashEntropy([...splitWords(seed), ...splitWords(number)]), 8);
  const [start, sequence] = [words.slice(0, 4), words.slice(4)].map(join128);
  const state = { value: 0n, increment: ((sequence << 1n) | 1n) & MASK_128 };
  advance(state);
  state.value = (state.value + start) & MASK_128;
  advance(state);
  return state;
}

function advance(state) {
  state.value = (state.value * MULTIPLIER + state.increment) & MASK_128;
}

function nextDouble(state) {
  advance(state);
  const word = (state.value >> 64n) ^ (state.value & MASK_64);
  const turn = state.value >> 122n;
  const output = ((word >> turn) | (word << (64n - turn))) & MASK_64;
  return Number(output >> 11n) * 2 ** -53;
}

/** Returns two words of 64 bits, each two of 32 bits with the lower one first, as a number of 128 bits, the higher one first. */
function join128([a, b, c, d]) {
  return (BigInt(b) << 96n) | (BigInt(a) << 64n) | (BigInt(d) << 32n) | BigInt(c);
}

/** Returns the words of 32 bits of a whole number, the lowest first. */
function splitWords(value) {
  let rest = BigInt(value);
  if (rest < 0n) throw new Error(`The seed must be a whole number of at least 0; got ${value}.`);
  const words = [];
  do {
    words.push(Number(rest & MASK_32));
    rest >>= 32n;
  } while (rest > 0n);
  return words;
}

/** Returns the pool of a SeedSequence: its entropy, hashed into four words. */
function hashEntropy(entropy) {
  const hash = createHash(0x43b0d7e5, 0x931e8875);
  const pool = Array.from({ length: POOL_SIZE }, (_, place) => hash(entropy[place] ?? 0));
  for (let source = 0; source < POOL_SIZE; source++) {
    for (let target = 0; target < POOL_SIZE; target++) {
      if (source !== target) pool[target] = mix(pool[target], hash(pool[source]));
    }
  }
  for (const word of entropy.slice(POOL_SIZE)) {
    for (let target = 0; target < POOL_SIZE; target++) pool[target] = mix(pool[target], hash(word));
  }
  return pool;
}

/** Returns words that are drawn from a pool. */
function generateWords(pool, count) {
  const hash = createHash(0x8b51f9dd, 0x58f38ded);
  return Array.from({ length: count }, (_, place) => hash(pool[place % POOL_SIZE]));
}

/** Returns a hash function of 32-bit words whose constant changes with every call. */
function createHash(constant, multiplier) {
  return (word) => {
    let value = word ^ constant;
    constant = Math.imul(constant, multiplier);
    value = Math.imul(value, constant);
    return (value ^ (value >>> 16)) >>> 0;
  };
}

function mix(x, y) {
  const value = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0;
  return (value ^ (value >>> 16)) >>> 0;
}
