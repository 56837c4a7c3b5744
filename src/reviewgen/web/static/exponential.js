/**
 * The exponential function of numbers of at most 0, in less than half the time of a browser's `Math.exp`.
 *
 * Tang 1989, "Table-driven implementation of the exponential function": exp(x) = 2 ** -k * 2 ** (i / 128) * exp(r) with a small r.
 * The result is within about 1e-13 of the exact one, relative to it.
 */

const STEPS = 128;
const LOWEST = -708; // below, a result has fewer bits
const POWERS = Float64Array.from({ length: STEPS }, (_, step) => 2 ** (step / STEPS));
const HALVES = Float64Array.from({ length: 1023 }, (_, k) => 2 ** -k);

/** Returns e to the power of a number of at most 0. */
export function exp(x) {
  if (!(x > LOWEST)) return Math.exp(x);
  const count = (x * (STEPS / Math.LN2) - 0.5) | 0;
  const r = x - count * (Math.LN2 / STEPS);
  const step = count & (STEPS - 1);
  return POWERS[step] * HALVES[(step - count) >> 7] * (1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24)))));
}
