/**
 * The numbers among the settings, and links whose fragment holds all settings and the seed:
 * `#model=lstm-word&prompt=The+movie&seed=7&temperature=0.7&c.stars=5`.
 *
 * A link may come from anywhere: everything in it is checked before it is used, and nothing of it becomes markup.
 */

/** The names of numbers, their limits and defaults. */
export const LIMITS = {
  temperature: { label: "temperature", low: 0.05, high: 2, step: 0.01, start: 0.8 },
  top_p: { label: "top-p", low: 0.01, high: 1, step: 0.01, start: 1 },
  min_p: { label: "min-p", low: 0, high: 1, step: 0.01, start: 0 },
  max_tokens: { label: "length", low: 1, high: 100000, step: 1, start: 300 },
  n: { label: "number of texts", low: 1, high: 8, step: 1, start: 1 },
  seed: { label: "seed", low: 0, high: Number.MAX_SAFE_INTEGER, step: 1, start: 0 },
  max_copy: { label: "longest copy", low: 1, high: 1000, step: 1, start: null },
};

/** The settings that are lists of texts: what separates the texts in a field, and their maximum length together, in characters. */
export const LISTS = {
  include: { label: "words to include", separators: /[,\n]/, joint: ", ", most: 1000 },
  exclude: { label: "words to exclude", separators: /[,\n]/, joint: ", ", most: 1000 },
  choices: { label: "choices", separators: /[|\n]/, joint: "\n", most: 2000 },
};

const MAX_PROMPT = 50000; // characters: what the page takes, and what was written after it
const MAX_LENGTH = 9 * MAX_PROMPT + 10000; // a character takes up to nine, as "%E2%82%AC"
const TEXTS = ["model", "second", "prompt", "profile", "novelty"];

function isInRange(name, number) {
  const { low, high, step } = LIMITS[name];
  return number >= low && number <= high && (step < 1 || Number.isInteger(number));
}

/** Returns a text as the number of a setting; throws an Error if it is not a number, or out of range. */
export function toNumber(name, text) {
  const { label, low, high, step } = LIMITS[name];
  const number = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i.test(text) ? Number(text) : NaN;
  if (isInRange(name, number)) return number;
  const kind = step < 1 ? "a number" : "a whole number";
  throw new Error(`The ${label} must be ${kind} from ${low} to ${high}, not ${text.trim() === "" ? "empty" : quote(text)}.`);
}

/** Returns the texts of a list as a field has them. */
export const toList = (name, text) => text.split(LISTS[name].separators).map((each) => each.trim()).filter((each) => each !== "");

/** Returns the values that a condition can be given; "any" leaves it unspecified. */
export const labelsOf = ({ values }) => ["any", ...values.map(({ label }) => label)];

/** Returns a value in quotes for a sentence, cut where it is long. */
const quote = (text) => `“${text.length > 60 ? `${text.slice(0, 60)}…` : text}”`;

function check(isRight, sentence) {
  if (!isRight) throw new Error(sentence);
}

/** Returns settings as a fragment, without "#". A number out of range is a default of the model: a link without it means it. */
export function encodeFragment({ conditions, ...settings }) {
  const size = settings.prompt.length;
  check(size <= MAX_PROMPT, `The text is too long for a link: it can hold ${MAX_PROMPT} characters, and these are ${size}.`);
  const fields = new URLSearchParams();
  for (const name of [...TEXTS, ...Object.keys(LIMITS)]) {
    const values = [settings[name] ?? ""].flat();
    const isKept = name in LIMITS ? values.every((each) => each !== "" && isInRange(name, each)) : values[0] !== "";
    if (isKept) fields.set(name, values.join(","));
  }
  for (const [name, { joint }] of Object.entries(LISTS)) if (settings[name]) fields.set(name, settings[name].join(joint));
  for (const [name, value] of Object.entries(conditions)) if (value !== null) fields.set(`c.${name}`, value);
  return fields.toString();
}

/** Returns the settings that a fragment holds; throws an Error if one is unknown, out of range, or of no model here. */
export function decodeFragment(fragment, models) {
  check(fragment.length <= MAX_LENGTH, `The link is too long: at most ${MAX_LENGTH} characters can be read.`);
  const texts = Object.fromEntries(TEXTS.map((name) => [name, ""]));
  const lists = { include: null, exclude: null, choices: null };
  const settings = { conditions: Object.create(null), ...texts, ...lists, model: models[0].id, max_copy: null };
  for (const [name, value] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (name.startsWith("c.")) settings.conditions[name.slice(2)] = value;
    else if (name === "temperature" && value.includes(",")) settings[name] = value.split(",").map((each) => toNumber(name, each));
    else if (Object.hasOwn(LIMITS, name)) settings[name] = toNumber(name, value);
    else if (Object.hasOwn(LISTS, name)) {
      const { label, most } = LISTS[name];
      check(value.length <= most, `The ${label} of the link are too long: at most ${most} characters.`);
      settings[name] = toList(name, value);
    } else if (TEXTS.includes(name)) settings[name] = value || settings[name];
    else throw new Error(`The link has a setting that this page does not know: ${quote(name)}.`);
  }
  for (const name of ["model", "second"]) {
    const known = (key) => models.find((model) => model[key] === settings[name]);
    settings[name] = (known("id") ?? known("preset"))?.id ?? settings[name]; // earlier pages named a model by its preset
  }
  checkTexts(settings, models);
  return settings;
}

/** Checks what is not a number in a link. */
function checkTexts({ model, second, prompt, profile, novelty, max_copy: limit, conditions }, models) {
  const ids = models.map(({ id }) => id);
  for (const id of [model, second || model]) {
    check(ids.includes(id), `The link names the model ${quote(id)}, which this page does not have; it has ${ids.join(", ")}.`);
  }
  check(prompt.length <= MAX_PROMPT, `The prompt of the link is too long: at most ${MAX_PROMPT} characters.`);
  check(["", "likeness"].includes(profile), `The link has profile=${quote(profile)}; it can only be “likeness”.`);
  check(["", "filter"].includes(novelty), `The link has novelty=${quote(novelty)}; it can only be “filter”.`);
  const chosen = models.filter(({ id }) => [model, second].includes(id));
  const isPossible = (novelty === "" && limit === null) || chosen.some(({ hasIndex }) => hasIndex);
  const reason = `${chosen[0].id} has no index of its training text here: take novelty and max_copy out of the link.`;
  check(isPossible, `The link asks for a text without copies, but ${reason}`);
  for (const [name, label] of Object.entries(conditions)) {
    const known = chosen.flatMap((each) => each.conditions).filter((each) => each.name === name);
    const labels = known.flatMap((each) => (each.kind === "text" ? [label] : labelsOf(each)));
    check(known.length > 0, `The link has the condition ${quote(name)}, which the model does not have.`);
    const sentence = `The link has ${quote(label)} for the condition ${quote(name)}; it can be ${labels.join(", ")}.`;
    check(labels.includes(label), sentence);
  }
}
