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

/** Adds a token; one that is part of a character (text "") waits, and its bits are those of the character's last token. */
export function addToken(tokens, token, waiting) {
  if (token.text === "") return waiting + token.bits;
  tokens.push({ ...token, bits: token.bits + waiting });
  return 0;
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

/** Returns a token's text with white space made visible: "␣great", "↵". */
export function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

/** Returns a token's text as a screen reader can say it. */
export function spoken(text) {
  if (text === "") return "part of a character";
  return text.trim() || { " ": "space", "\n": "line break" }[text] || "white space";
}
