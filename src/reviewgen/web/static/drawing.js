/**
 * Draws one token with a random number: by an exponential race, so that close probabilities give the same token.
 *
 * The same arithmetic of 32 bits as `reviewgen.compiled.drawing`, where the method is explained.
 */

const GOLDEN = 0x9e3779b9; // 2 ** 32 divided by the golden ratio: far apart for ids that are close

/**
 * Returns a token by its probability; of tokens that are ruled out, the same number gives the next best instead.
 * @param {Float64Array} probs Unnormalised probabilities, not negative, at least one above zero.
 * @param {number} uniform A random number in [0, 1).
 */
export function drawToken(probs, uniform) {
  const high = Math.floor(uniform * 2 ** 32);
  const low = (uniform * 2 ** 32 - high) * 2 ** 32;
  const first = mix((high + low) | 0, low | 0) | 0;
  const second = mix((low + GOLDEN) | 0, first) | 0;
  let [winner, prob, time] = [0, 0, Infinity]; // time: that of arrival, times the probability
  for (let token = 0; token < probs.length; token++) {
    const own = probs[token];
    if (own <= 0) continue;
    const bits = mix((first + Math.imul(token, GOLDEN)) | 0, second);
    if (own * time <= prob * (bits * 2 ** -32)) continue; // -log(1 - x) >= x, so it cannot be the first to arrive
    const share = (bits + (mix(bits | 0, first) >>> 11) * 2 ** -21) * 2 ** -32; // in [0, 1), of 53 bits
    const ownTime = -Math.log1p(-share);
    if (own * time > prob * ownTime) [winner, prob, time] = [token, own, ownTime];
  }
  return winner;
}

/** Returns a hash, a whole number from 0 to 2 ** 32 - 1, of two whole numbers of 32 bits; constants by Wellons 2018 ("lowbias32"). */
function mix(x, key) {
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15) ^ key, 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
}
