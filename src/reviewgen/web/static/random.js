/**
 * The random stream of a text: the numbers that numpy's `default_rng((seed, number)).random()` returns, bit for bit.
 *
 * SeedSequence (O'Neill 2015, "Developing a seed_seq alternative") hashes the words of seed and number into the state of a
 * PCG64 (O'Neill 2014: a linear congruential generator of 128 bits with the output permutation XSL-RR).
 */

const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const POOL_SIZE = 4; // words of 32 bits

/** Returns the random stream of a seed and further numbers: a function that returns the next number in [0, 1). */
export function createRandom(...numbers) {
  const pool = hashEntropy(numbers.flatMap(splitWords));
  const hash = createHash(0x8b51f9dd, 0x58f38ded);
  const words = Array.from({ length: 8 }, (_, place) => hash(pool[place % POOL_SIZE]));
  const increment = (join128(words.slice(4)) << 1n) | 1n;
  const advance = (value) => BigInt.asUintN(128, value * MULTIPLIER + increment);
  let state = advance(increment + join128(words.slice(0, 4)));
  return () => {
    state = advance(state);
    const word = BigInt.asUintN(64, (state >> 64n) ^ state);
    const turn = state >> 122n;
    return Number(BigInt.asUintN(64, (word >> turn) | (word << (64n - turn))) >> 11n) * 2 ** -53;
  };
}

/** Returns two words of 64 bits, each two of 32 bits with the lower one first, as a number of 128 bits, the higher one first. */
const join128 = ([a, b, c, d]) => (BigInt(b) << 96n) | (BigInt(a) << 64n) | (BigInt(d) << 32n) | BigInt(c);

/** Returns the words of 32 bits of a whole number, the lowest first. */
function splitWords(value) {
  const [word, rest] = [BigInt.asUintN(32, BigInt(value)), BigInt(value) >> 32n];
  return [Number(word), ...(rest > 0n ? splitWords(rest) : [])];
}

/** Returns the pool of a SeedSequence: its entropy, hashed into four words. */
function hashEntropy(entropy) {
  const hash = createHash(0x43b0d7e5, 0x931e8875);
  const pool = Array.from({ length: POOL_SIZE }, (_, place) => hash(entropy[place] ?? 0));
  const others = entropy.slice(POOL_SIZE);
  for (let source = 0; source < POOL_SIZE + others.length; source++) {
    for (let target = 0; target < POOL_SIZE; target++) {
      if (source !== target) pool[target] = mix(pool[target], hash(pool[source] ?? others[source - POOL_SIZE]));
    }
  }
  return pool;
}

/** Returns a hash function of 32-bit words whose constant changes with every call. */
function createHash(constant, multiplier) {
  return (word) => {
    const before = constant;
    constant = Math.imul(constant, multiplier);
    return fold(Math.imul(word ^ before, constant));
  };
}

const mix = (x, y) => fold(Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y));
const fold = (value) => (value ^ (value >>> 16)) >>> 0;
