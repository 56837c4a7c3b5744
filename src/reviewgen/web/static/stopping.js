/**
 * Where a text ends: at eos, at a stop string, at `max_new_tokens`, or at its last whole sentence, as in
 * `reviewgen.generation.stopping`. A row is as in `decoder.js`. Knows no model.
 */

import { sentenceEnds } from "./sentences.js";

const MAX_TOKENS_PER_CHARACTER = 8;
const CUT_OFF = ["length", "stuck"]; // finish reasons of a text that did not end by itself

/** Finishes a row if its last token completes a stop string or `max_new_tokens`; returns whether it does. */
export function checkEnd(row, tokenizer, config) {
  if (config.stop_strings.length > 0 && finishAtStopString(row, tokenizer, config)) return true;
  if (row.newTokens >= config.max_new_tokens) finish(row, tokenizer, config, "length");
  return row.finishReason !== null;
}

/**
 * Finishes a row as it stands, without an incomplete last character.
 *
 * With `finish: "sentence"`, one that was cut off ends with its last whole sentence.
 */
export function finish(row, tokenizer, config, reason) {
  [row.text, row.finishReason] = [fullText(row, tokenizer), reason];
  if (!CUT_OFF.includes(reason)) return;
  if (row.text.endsWith("\ufffd")) { // inside a character
    row.text = row.prompt + withoutHalves(row.text.slice(row.prompt.length));
    dropUnusedTokens(row, tokenizer);
  }
  if (config.finish !== "sentence") return;
  const end = sentenceEnds(row.text, row.prompt.length).at(-1);
  if (end !== undefined && keepsMinNewTokens(row, row.text.slice(0, end), tokenizer, config)) {
    row.text = row.text.slice(0, end);
    dropUnusedTokens(row, tokenizer);
  }
}

/** Returns the prompt as given, even if the tokenizer cannot represent all of it, and its continuation. */
function fullText(row, tokenizer, ids = row.ids) {
  return row.prompt + tokenizer.decode(ids).slice(row.promptLength);
}

/** Returns a text without an incomplete last character, which decodes to one or more U+FFFD. */
export function withoutHalves(text) {
  return text.replace(/\ufffd+$/, "");
}

/** Returns whether a shortened text still has `min_new_tokens`, if the whole one had. */
function keepsMinNewTokens(row, text, tokenizer, config) {
  const minimum = config.min_new_tokens;
  if (row.newTokens < Math.max(1, minimum)) return true;
  return row.newTokens - (row.ids.length - countTokens(row, text, tokenizer)) >= minimum;
}

/** Finishes a row at the end of the first stop string in its continuation; returns whether there is one. */
function finishAtStopString(row, tokenizer, config) {
  const stops = config.stop_strings;
  const size = MAX_TOKENS_PER_CHARACTER * (Math.max(...stops.map((stop) => stop.length)) + 1);
  const tail = tokenizer.decode(row.ids.slice(-size));
  if (!stops.some((stop) => tail.includes(stop))) return false;
  const text = fullText(row, tokenizer);
  const places = stops.map((stop) => [text.indexOf(stop, row.prompt.length), stop.length]).filter(([start]) => start >= 0);
  if (places.length === 0) return false;
  const end = Math.min(...places.map(([start, length]) => start + length));
  [row.text, row.finishReason] = [text.slice(0, end), "stop"];
  dropUnusedTokens(row, tokenizer);
  return true;
}

/** Removes the tokens behind the end of a row's text. */
function dropUnusedTokens(row, tokenizer) {
  const kept = countTokens(row, row.text, tokenizer);
  row.newTokens -= row.ids.length - kept;
  row.ids.length = kept;
}

/** Returns the number of leading tokens of a row that are needed for a beginning of its text; at least its prompt's. */
function countTokens(row, text, tokenizer) {
  const decoded = (count) => fullText(row, tokenizer, row.ids.slice(0, count));
  let [low, high] = [row.promptTokens, row.ids.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (decoded(middle).length < text.length) low = middle + 1;
    else high = middle;
  }
  while (low < row.ids.length && !decoded(low).startsWith(text)) low++; // inside a character
  return low;
}
