/** What a text is made of: a prompt, tokens with their surprise, and copied spans. Touches no page. */

/**
 * Returns the tokens that make up the final text of an engine, which may have cut the end off (a stop string, an unfinished
 * sentence): whole tokens first, then what remains of the last one.
 * @param {string} text  The final text, prompt included.
 * @param {string} prompt
 * @param {Array<{text: string, bits: number}>} tokens
 */
export function fitTokens(text, prompt, tokens) {
  const fitted = [];
  let place = Math.min(prompt.length, text.length);
  for (const token of tokens) {
    if (!text.startsWith(token.text, place)) break;
    fitted.push(token);
    place += token.text.length;
  }
  const rest = text.slice(place);
  const next = tokens[fitted.length];
  if (rest) fitted.push(next && next.text.startsWith(rest) ? { ...next, text: rest } : { text: rest, bits: 0, alternatives: [] });
  return fitted;
}

/**
 * Adds a token; one that is part of a character (text "") waits, and its bits are those of the character's last token. An engine
 * samples the last word of a prompt again, so the first tokens may add nothing; what they cost is the prompt's.
 * @param {Array} tokens  Of which those from `first` on are the request's.
 * @returns {number} The bits that wait.
 */
export function addToken(tokens, token, waiting, first, prompt) {
  if (token.text === "") return tokens.length > first ? waiting + token.bits : 0;
  const alternatives = tokens.length > first ? token.alternatives : afterPrompt(token, prompt);
  tokens.push({ ...token, alternatives, bits: token.bits + waiting });
  return 0;
}

/** Returns the alternatives of a token that repeats the end of the prompt as what they add to it; others would change it. */
function afterPrompt({ text, alternatives }, prompt) {
  const own = alternatives.find(
    (each) => each.text.length > text.length && each.text.endsWith(text) && prompt.endsWith(each.text.slice(0, -text.length)),
  );
  if (!own) return alternatives;
  const repeated = own.text.slice(0, -text.length);
  const fitting = alternatives.filter((each) => each.text.startsWith(repeated));
  return fitting.map((each) => ({ ...each, text: each.text.slice(repeated.length) })).filter((each) => each.text !== "");
}

/**
 * Cuts a token's text where copied spans begin and end.
 * @param {number} start  Where in the whole text it begins.
 * @param {string} text
 * @param {Array<{start: number, end: number}>} spans
 * @returns {Array<{text: string, span: object|null}>}
 */
export function cutBySpans(start, text, spans) {
  const end = start + text.length;
  const edges = spans.flatMap((span) => [span.start, span.end]).filter((edge) => edge > start && edge < end);
  const cuts = [...new Set([start, ...edges, end])].sort((one, other) => one - other);
  return cuts.slice(0, -1).map((from, index) => ({
    text: text.slice(from - start, cuts[index + 1] - start),
    span: spans.find((span) => span.start <= from && span.end > from) ?? null,
  }));
}

/** Returns a number of tokens in words. */
export function countText(count) {
  return `${count} ${count === 1 ? "token" : "tokens"}`;
}

/** Returns a token's text with white space and control characters made visible: "␣great", "↵", "[2028]". */
export function visible(text) {
  const signs = { " ": "␣", "\n": "↵", "\t": "⇥" };
  const code = (character) => `[${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
  return text.replace(/[\s\p{Cc}\u00ad\u200b\u2060]/gu, (character) => signs[character] ?? code(character));
}

/** Returns a token's text as a screen reader can say it. */
export function spoken(text) {
  if (text === "") return "part of a character";
  return text.trim() || { " ": "space", "\n": "line break" }[text] || "white space";
}
