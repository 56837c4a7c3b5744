/**
 * The exponential function, rounded like that of C's mathematical library in nearly every case.
 *
 * `Math.exp` of a browser differs from it in the last bit of one number in ten. Where a token is drawn again and again from one
 * random number, such a difference grows until it changes the token. Tang 1989, "Table-driven implementation of the exponential
 * function": exp(x) = 2 ** k * 2 ** (i / 128) * exp(r), where the powers are known in twice the precision.
 */

const STEPS = 128;
const BITS = 160n; // of the fractions that the table is computed with
const LN2_HIGH = Math.floor((Math.LN2 / STEPS) * 2 ** 41) / 2 ** 41; // of few bits, so that its multiples are exact
const LN2_LOW = Math.LN2 / STEPS - LN2_HIGH + 2.3190468138462996e-17 / STEPS;
const LOWEST = -708; // below, a result has fewer bits
const [POWERS, TAILS] = tabulate();
const HALVES = Float64Array.from({ length: 1023 }, (_, k) => 2 ** -k); // exact, and much faster to look up than to compute

/** Returns e to the power of a number of at most 0. */
export function exp(x) {
  if (!(x > LOWEST)) return Math.exp(x);
  const count = Math.round((x * STEPS) / Math.LN2);
  const r = x - count * LN2_HIGH - count * LN2_LOW;
  const step = count & (STEPS - 1);
  const series = r * r * (1 / 2 + r * (1 / 6) + r * r * (1 / 24 + r * (1 / 120)));
  return (POWERS[step] + POWERS[step] * (TAILS[step] + r + series)) * HALVES[(step - count) / STEPS];
}

/** Returns 2 ** (i / 128) for each i, and what rounding took from each, relative to it. */
function tabulate() {
  let root = 2n << BITS;
  for (let size = STEPS; size > 1; size /= 2) root = squareRoot(root << BITS);
  const [powers, tails] = [[], []];
  for (let step = 0, power = 1n << BITS; step < STEPS; step++, power = (power * root) >> BITS) {
    const rounded = Number(power >> (BITS - 62n)) / 2 ** 62;
    const rest = power - (BigInt(rounded * 2 ** 52) << (BITS - 52n));
    powers.push(rounded);
    tails.push(Number(rest) / 2 ** Number(BITS) / rounded);
  }
  return [Float64Array.from(powers), Float64Array.from(tails)];
}

/** Returns the square root of a whole number, rounded down (Newton's method). */
function squareRoot(number) {
  let root = 1n << BigInt((number.toString(2).length >> 1) + 1);
  for (;;) {
    const next = (root + number / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}
