/**
 * Prompts: which token ids the model is fed, and which end of the text it samples again, as in `reviewgen.generation.prompts`.
 *
 * A prompt may end inside what the tokenizer would make one token: "the mov" before "ie". So the last word is removed, and the
 * first sampled tokens must match it and may run on ("token healing").
 */

import { beginsWithSpace } from "./sentences.js";

const MAX_HEALED = 8; // tokens removed from the end of a prompt

/** The text of every single token (its *piece*); the empty string for bos, eos and parts of a character. */
export function createPieces(tokenizer) {
  const texts = Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.decode([id]));
  const pieces = texts.map((text) => (text.includes("\ufffd") ? "" : text));
  return { texts: pieces, areCharacters: pieces.every((piece) => [...piece].length <= 1) };
}

/**
 * Returns a prompt's ids without its last word, and that word.
 * @returns {{ids: number[], rest: string, length: number}} `length`: of both as the tokenizer decodes them, in UTF-16 units.
 */
export function splitPrompt(tokenizer, pieces, text) {
  const ids = tokenizer.encode(text);
  let keep = ids.length;
  while (!pieces.areCharacters && keep > Math.max(0, ids.length - MAX_HEALED) && pieces.texts[ids[keep - 1]]) {
    keep--;
    if (beginsWithSpace(pieces.texts[ids[keep]])) break;
  }
  let rest = ids.slice(keep).map((id) => pieces.texts[id]).join("");
  if (!text.endsWith(rest)) [keep, rest] = [ids.length, ""];
  const kept = ids.slice(0, keep);
  return { ids: kept, rest, length: tokenizer.decode(kept).length + rest.length };
}

/** Returns whether a token may come next where the text must go on with `rest`. */
export function matches(piece, rest) {
  return piece !== "" && (piece.startsWith(rest) || rest.startsWith(piece));
}
