/** Where the sentences of a text end, as `reviewgen.sentences` finds them. Knows no models and no tokens. */

const WHITE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Python's str.isspace
const WORD = "\\p{L}\\p{N}_";
const END = new RegExp(`[.!?…。！？]+["'”’»)\\]]*(?=[${WHITE}]|$)|[。！？]+["'”’»)\\]」』）】》]*`, "gu"); // not the full stop in 3.5
const WORD_BEFORE = new RegExp(`([${WORD}][${WORD}.]*)$`, "u");
const CAPITAL_AFTER = new RegExp(`^[${WHITE}]+(?![a-z])[\\p{L}\\p{Nl}\\p{No}]`, "u");
const NUMBER_AFTER = new RegExp(`^[${WHITE}]*\\p{Nd}`, "u");
const ABBREVIATIONS = new Set(
  "e.g i.e mr mrs ms dr prof jr sr messrs mme mlle vs etc cf inc ltd dept approx usw bzw evtl ggf vgl".split(" "),
);
const OF_NUMBERS = new Set("no nr vol fig pp p art jan feb mar apr jun jul aug sep sept oct nov dec".split(" "));
const LONGEST_WORD = 24; // characters that are looked at before a full stop
const SPACE = new RegExp(`^[${WHITE}]`, "u");

/** Returns whether a text begins with white space, as Python defines it. */
export const beginsWithSpace = (text) => SPACE.test(text);

/** Returns where the sentences of a text end, from a position on; the full stop of an abbreviation or of an initial ends none. */
export function sentenceEnds(text, start = 0) {
  END.lastIndex = start; // which matchAll begins at
  const found = [...text.matchAll(END)].filter((match) => !isAbbreviated(text, match[0], match.index));
  return found.map((match) => match.index + match[0].length);
}

/** Returns whether the full stop belongs to an abbreviation, an initial or a numbered item, and ends no sentence. */
function isAbbreviated(text, end, place) {
  if (end !== ".") return false;
  const near = [...text.slice(Math.max(0, place - 2 * LONGEST_WORD), place)].slice(-LONGEST_WORD).join("");
  const word = WORD_BEFORE.exec(near)?.[1];
  if (word === undefined) return false;
  const after = text.slice(place + 1);
  const isInitial = [...word].length === 1 && word !== "I" && /^\p{Uppercase}$/u.test(word) && CAPITAL_AFTER.test(after);
  const isOfNumber = OF_NUMBERS.has(word.toLowerCase()) && NUMBER_AFTER.test(after);
  return isInitial || isOfNumber || ABBREVIATIONS.has(word.toLowerCase());
}
