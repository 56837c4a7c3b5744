/** The numbers among the settings: their names, limits and defaults, for the controls and for links. */

export const LIMITS = {
  temperature: { label: "temperature", low: 0.05, high: 2, step: 0.01, start: 0.8 },
  top_p: { label: "top-p", low: 0.01, high: 1, step: 0.01, start: 1 },
  min_p: { label: "min-p", low: 0, high: 1, step: 0.01, start: 0 },
  max_tokens: { label: "length", low: 1, high: 100000, step: 1, start: 300 },
  n: { label: "number of texts", low: 1, high: 8, step: 1, start: 1 },
  seed: { label: "seed", low: 0, high: Number.MAX_SAFE_INTEGER, step: 1, start: 0 },
  max_copy: { label: "longest copy", low: 1, high: 1000, step: 1, start: null },
};

/** Returns whether a number is one that a setting can have. */
export function isInRange(name, number) {
  const { low, high, step } = LIMITS[name];
  return number >= low && number <= high && (step < 1 || Number.isInteger(number));
}

/**
 * Returns a text as the number of a setting.
 * @throws {Error} It is not a number, or out of range.
 */
export function toNumber(name, text) {
  const { label, low, high, step } = LIMITS[name];
  const number = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i.test(text) ? Number(text) : NaN;
  if (isInRange(name, number)) return number;
  const kind = step < 1 ? "a number" : "a whole number";
  throw new Error(`The ${label} must be ${kind} from ${low} to ${high}, not ${text.trim() === "" ? "empty" : quote(text)}.`);
}

/** Returns a value in quotes for a sentence, cut where it is long. */
export function quote(text) {
  return `“${text.length > 60 ? `${text.slice(0, 60)}…` : text}”`;
}
