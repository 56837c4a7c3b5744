/** Elements of the page, and how tokens, bits and probabilities are shown. Text is set as text, never as markup. */

const EDGES = [1, 2, 3, 5, 7, 9, 12]; // bits of surprise; the shades 1 to 7 begin here, as in the legend of page.html
const SPOKEN = { "": "part of a character", " ": "space", "\n": "line break" };

export const byId = (id) => document.getElementById(id);

/** Returns a new element with attributes, of which `text` and functions (`onclick`) are set as properties, and children. */
export function create(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") element.textContent = value;
    else if (typeof value === "function") element[name] = value;
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Shows an error as one sentence in the page, or takes it away; a screen reader reads it at once. */
export const showError = (error) => (byId("error").textContent = error?.message ?? "");

/** Does some work, and shows what goes wrong. */
export async function attempt(work) {
  showError(null);
  try {
    await work();
  } catch (error) {
    showError(error);
  }
}

/** Puts a text on the clipboard; returns whether the browser allowed it. */
export const copyText = (text) => navigator.clipboard.writeText(text).then(() => true, () => false);

/** Returns the shade of a token, 0 to 7, by its surprise: -log2 of its probability. */
export const shadeOf = (bits) => EDGES.filter((edge) => bits >= edge).length;

/** Returns bits as text: "2.3 bits". */
export const bitsText = (bits) => (Number.isFinite(bits) ? `${bits.toFixed(1)} bits` : "infinitely many bits");

/** Returns a probability as text: "20.3 %". */
export function percentText(probability) {
  const percent = 100 * probability;
  return percent >= 0.1 || percent === 0 ? `${percent.toFixed(1)} %` : percent >= 0.001 ? `${percent.toFixed(3)} %` : "< 0.001 %";
}

/** Returns a number of things in words: "1 token", "2 tokens". */
export const countText = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Returns a token's text with white space and control characters made visible: "␣great", "↵", "[2028]". */
export function visible(text) {
  const signs = { " ": "␣", "\n": "↵", "\t": "⇥" };
  const code = (character) => `[${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
  return text.replace(/[\s\p{Cc}\u00ad\u200b\u2060]/gu, (character) => signs[character] ?? code(character));
}

/** Returns a token's text as a screen reader can say it. */
export const spoken = (text) => text.trim() || SPOKEN[text] || "white space";
