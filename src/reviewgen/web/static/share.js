/**
 * Links whose fragment holds all settings and the seed: `#model=lstm-word&prompt=The+movie&seed=7&temperature=0.7&c.stars=5`.
 *
 * A link may come from anywhere: everything in it is checked before it is used, and nothing of it becomes markup.
 */
import { LIMITS, isInRange, quote, toNumber } from "./limits.js";

const MAX_PROMPT = 50000; // characters: what the page takes, and what was written after it
const MAX_LENGTH = 9 * MAX_PROMPT + 10000; // a character takes up to nine, as "%E2%82%AC"
const TEXTS = ["model", "second", "prompt", "novelty"];

/**
 * Returns settings as a fragment, without "#". A number that is out of range is a default of the model: a link without it means it.
 * @throws {Error} The text is too long for a link.
 */
export function encodeFragment(settings) {
  if (settings.prompt.length > MAX_PROMPT)
    throw new Error(`The text is too long for a link: it can hold ${MAX_PROMPT} characters, and these are ${settings.prompt.length}.`);
  const fields = new URLSearchParams();
  for (const name of [...TEXTS, ...Object.keys(LIMITS)]) {
    const value = settings[name];
    if (name in LIMITS && ![value].flat().every((each) => isInRange(name, each))) continue;
    if (value !== null && value !== undefined && value !== "") fields.set(name, Array.isArray(value) ? value.join(",") : value);
  }
  for (const [name, value] of Object.entries(settings.conditions)) if (value !== null) fields.set(`c.${name}`, value);
  const fragment = fields.toString();
  if (fragment.length > MAX_LENGTH) throw new Error(`The settings are too long for a link: it can have ${MAX_LENGTH} characters.`);
  return fragment;
}

/**
 * Returns the settings that a fragment holds; those that it leaves out are missing.
 * @param {string} fragment  With or without "#".
 * @param {Array} models  What the engine offers.
 * @throws {Error} A setting is unknown or out of range; the message is one sentence.
 */
export function decodeFragment(fragment, models) {
  if (fragment.length > MAX_LENGTH) throw new Error(`The link is too long: at most ${MAX_LENGTH} characters can be read.`);
  const settings = { conditions: Object.create(null), second: "", prompt: "", novelty: "", max_copy: null };
  for (const [name, value] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (name.startsWith("c.")) settings.conditions[name.slice(2)] = value;
    else if (name === "temperature" && value.includes(",")) settings[name] = value.split(",").map((each) => toNumber(name, each));
    else if (Object.hasOwn(LIMITS, name)) settings[name] = toNumber(name, value);
    else if (TEXTS.includes(name)) settings[name] = value;
    else throw new Error(`The link has a setting that this page does not know: ${quote(name)}.`);
  }
  checkTexts(settings, models);
  return settings;
}

/** Checks the model, the prompt and the conditions of a link. */
function checkTexts(settings, models) {
  const ids = models.map((model) => model.id);
  settings.model ||= ids[0];
  for (const id of [settings.model, settings.second].filter(Boolean)) {
    if (!ids.includes(id))
      throw new Error(`The link names the model ${quote(id)}, which this page does not have; it has ${ids.join(", ")}.`);
  }
  if (settings.prompt.length > MAX_PROMPT)
    throw new Error(`The prompt of the link is too long: at most ${MAX_PROMPT} characters.`);
  if (!["", "filter"].includes(settings.novelty))
    throw new Error(`The link has novelty=${quote(settings.novelty)}; it can only be “filter”.`);
  const chosen = models.filter((model) => [settings.model, settings.second].includes(model.id));
  if ((settings.novelty || settings.max_copy !== null) && !chosen.some((model) => model.hasIndex))
    throw new Error(
      `The link asks for a text without copies, but ${chosen[0].id} has no index of its training text here: ` +
        "take novelty and max_copy out of the link.",
    );
  const known = chosen.flatMap((model) => model.conditions);
  for (const [name, label] of Object.entries(settings.conditions)) {
    const labels = known.filter((each) => each.name === name).flatMap((each) => each.values.map((value) => value.label));
    if (!labels.length) throw new Error(`The link has the condition ${quote(name)}, which the model does not have.`);
    if (!labels.includes(label))
      throw new Error(`The link has ${quote(label)} for the condition ${quote(name)}; it can be ${labels.join(", ")}.`);
  }
}
