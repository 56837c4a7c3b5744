/**
 * The decoding loop of one text, from its prompt to where it ends, as in `reviewgen.generation`.
 *
 * Every text has its own random stream, seeded from the seed and the text's number. A token that may not follow is sampled again
 * from those that may; if none is left, it is taken nevertheless, or with a format tokens are taken back. Knows a model only by its
 * tokenizer and stepper.
 */
import { createRandom } from "./random.js";
import { DEAD_END, NOTHING_LEFT, NOT_A_NUMBER, sampleByProposals, sampleToken, samplingParams } from "./sampling.js";
import { beginsWithSpace, sentenceEnds } from "./sentences.js";
import { ANY_PLACE, followAll, follows } from "./spelling.js";

const MAX_HEALED = 8; // tokens removed from the end of a prompt
const MAX_TOKENS_PER_CHARACTER = 8;
const MAX_RETRIES = 3; // dead ends from which a text with a format goes back

/** Returns the text of every single token (its *piece*); the empty string for bos, eos and parts of a character. */
export function createPieces(tokenizer) {
  const decoded = Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.decode([id]));
  const texts = decoded.map((text) => (text.includes("\ufffd") ? "" : text));
  return { texts, areCharacters: texts.every((text) => [...text].length <= 1) };
}

/**
 * Returns a prompt's ids without its last word, that word as `rest`, and the length of both as the tokenizer decodes them. The
 * word may end inside a token ("the mov" before "ie"): the first sampled tokens must match it and may run on ("token healing").
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

/** Returns a text without an incomplete last character, which decodes to one or more U+FFFD. */
export const withoutHalves = (text) => text.replace(/\ufffd+$/, "");

/**
 * A text that a model continues, with the settings of `GenerationConfig` and the words that it may contain.
 *
 * `ids` are those of the text so far; `rest` is the end of the prompt that is not in them yet: the next tokens must match it, and
 * may run on. `forced` are ids to append next, whatever the model predicts. `place` is that among the known words. `formats` returns
 * what the text must look like, as `createFormats` does; null if it may be any.
 */
export class Text {
  constructor(model, config, spelling, formats, { prompt, conditionIds, seed, number }) {
    const { ids, rest, length } = splitPrompt(model.tokenizer, model.pieces, prompt);
    Object.assign(this, model, { config, spelling, prompt, ids, rest, promptLength: length, promptTokens: ids.length });
    Object.assign(this, { newTokens: 0, forced: [], isAtDeadEnd: false, retries: 0, finishReason: null, text: "" });
    this.format = formats === null ? null : formats(prompt, ids, rest);
    this.prefix = [model.tokenizer.bosId, ...conditionIds];
    this.params = samplingParams(config, model.tokenizer);
    this.random = createRandom(seed, number);
    this.place = followAll(spelling, spelling?.start ?? ANY_PLACE, ids);
  }

  /** Extends the text until it is finished; yields each token that adds to the prompt, and eos; a code if tokens were taken back. */
  *write() {
    if (this.config.max_new_tokens === 0) [this.text, this.finishReason] = [this.prompt, "length"];
    const feedAll = () => this.stepper.forward([...this.prefix, ...this.ids], this.stepper.initialState());
    let { logits, state, attention } = feedAll();
    while (this.finishReason === null) {
      const place = this.prefix.length + this.ids.length; // of the next token among the ids
      const [before, isForced] = [this.newTokens, this.forced.length > 0];
      const isPastPrompt = this.rest === "" && !isForced;
      const token = isPastPrompt && !this.isAtDeadEnd ? this.sampleNext(logits, state) : this.step(logits, isPastPrompt);
      const isNew = token >= 0 && !isForced && (this.newTokens !== before || this.finishReason !== null);
      if (isNew) yield { token, logits, attention, place };
      if (this.finishReason === null && this.format && token < 0) {
        this.takeBack();
        yield { token };
        ({ logits, state, attention } = feedAll());
      } else if (this.finishReason === null && token !== DEAD_END) ({ logits, state, attention } = this.stepper.forward([this.ids.at(-1)], state));
    }
  }

  /** Appends a token to a text that is past its prompt; returns it, or a code. */
  sampleNext(logits, state) {
    const { stepper, params, random, newTokens, spelling, place, format } = this;
    const proposed = stepper.propose && !params.isFiltered && !format
      ? sampleByProposals(stepper, state, logits.length, newTokens, random, params, spelling, place)
      : null;
    const { token, place: after } = proposed ?? this.sampleAt(this.weigh(logits), place);
    Object.assign(this, { place: after, isAtDeadEnd: token === DEAD_END && !format });
    this.append(token);
    return token;
  }

  /** Appends a token that matches the prompt, or one that makes an unknown word; returns it, or a code. */
  step(logits, isPastPrompt) {
    const matching = this.rest === "" ? logits : this.maskPrompt(logits);
    const table = this.forced.length > 0 ? matching : this.weigh(matching);
    let { token } = this.sampleAt(table, isPastPrompt ? this.place : ANY_PLACE);
    if (token === NOTHING_LEFT && this.rest !== "") this.forceRest(); // penalties rule out every match
    else if (token === DEAD_END) ({ token } = this.sampleAt(table, ANY_PLACE));
    const isForced = this.forced.length > 0;
    if (isForced) token = this.forced.shift();
    if (token >= 0 && token !== this.params.eosId) this.place = followAll(this.spelling, this.place, [token]);
    if (isForced) {
      this.ids.push(token);
      this.promptTokens = this.ids.length;
      return token;
    }
    if (token >= 0) this.isAtDeadEnd = false;
    this.append(token);
    return token;
  }

  /** Returns the logits without what the format rules out, the others weighed. */
  weigh(logits) {
    const { format, ids, newTokens, params } = this;
    return format ? format.apply(logits, ids, newTokens, params.temperatureOf(newTokens)) : logits;
  }

  /** Samples a token at a place among the known words; the penalties look back at what is written. */
  sampleAt(logits, place) {
    const seen = this.params.looksBack ? [this.prefix[0], ...this.ids] : [];
    return sampleToken(logits, seen, this.newTokens, this.random(), this.params, this.spelling, place);
  }

  /** Takes the tokenizer's tokens for the rest of the prompt. */
  forceRest() {
    [this.forced, this.rest] = [this.tokenizer.encode(this.rest), ""];
  }

  /** Returns the logits without the tokens that do not match the rest of the prompt. */
  maskPrompt(logits) {
    const { pieces, rest, spelling, place, params } = this;
    const matches = (piece) => piece !== "" && (piece.startsWith(rest) || rest.startsWith(piece));
    const ids = pieces.texts.map((_, token) => token);
    const allowed = ids.filter((token) => matches(pieces.texts[token]) && logits[token] > -Infinity);
    const known = allowed.filter((token) => follows(spelling, place, token, params.eosId) !== null);
    const masked = new Float64Array(logits.length).fill(-Infinity);
    for (const token of known.length > 0 ? known : allowed) masked[token] = logits[token];
    if (allowed.length > 0) return masked;
    this.forceRest(); // no match has a probability
    return logits;
  }

  /** Appends a sampled token, and finishes the text if it ends there. */
  append(token) {
    if (token === NOT_A_NUMBER) throw new Error("The model's numbers are damaged: its logits are not finite. Export it again.");
    if (token === NOTHING_LEFT && !this.format) this.finish("stuck");
    if (token === this.tokenizer.eosId) this.finish("end");
    if (token < 0 || this.finishReason !== null) return;
    const [rest, piece] = [this.rest, this.pieces.texts[token]];
    this.ids.push(token);
    this.newTokens += Number(piece.length > rest.length || rest === "");
    this.rest = rest.slice(piece.length);
    if (rest !== "") this.promptTokens = this.ids.length;
    if (this.rest !== "" || this.endsAtStopString()) return;
    if (this.newTokens >= this.config.max_new_tokens) this.finish("length");
  }

  /** Removes whole words from the end of a text at a dead end, more each time; after a few, the text ends where it is. */
  takeBack() {
    const removable = this.ids.length - this.promptTokens;
    this.retries += 1;
    if (this.retries > MAX_RETRIES || removable === 0) return this.finish("stuck");
    let removed = Math.min(2 ** this.retries, removable);
    while (removed < removable && !this.beginsWord(removed)) removed++;
    this.ids.length -= removed;
    this.newTokens -= removed;
    this.place = followAll(this.spelling, this.spelling?.start ?? ANY_PLACE, this.ids);
  }

  /** Returns whether a word begins with the last tokens, as many as `count`. */
  beginsWord(count) {
    const [before, token] = [this.ids.at(-count - 1), this.ids.at(-count)].map((id) => this.pieces.texts[id]);
    return !(/^[\p{L}\p{N}]/u.test(token) && /[\p{L}\p{N}]$/u.test(before));
  }

  /** Finishes the text as it stands; one that was cut off loses an incomplete character, and may end with its last sentence. */
  finish(reason) {
    [this.text, this.finishReason] = [this.decoded(), reason];
    if (reason === "end") return;
    if (this.text.endsWith("\ufffd")) this.shorten(this.prompt + withoutHalves(this.text.slice(this.prompt.length)));
    const end = this.config.finish === "sentence" ? sentenceEnds(this.text, this.prompt.length).at(-1) : undefined;
    if (end === undefined || !this.mayEndAfter(this.countTokens(this.text.slice(0, end)))) return;
    const { min_new_tokens: minimum } = this.config; // which a text that has them keeps
    const kept = this.newTokens - this.ids.length + this.countTokens(this.text.slice(0, end));
    if (this.newTokens < Math.max(1, minimum) || kept >= minimum) this.shorten(this.text.slice(0, end));
  }

  /** Finishes the text at the end of the first stop string in its continuation; returns whether there is one. */
  endsAtStopString() {
    const stops = this.config.stop_strings;
    if (stops.length === 0) return false;
    const size = MAX_TOKENS_PER_CHARACTER * (Math.max(...stops.map((stop) => stop.length)) + 1);
    const tail = this.tokenizer.decode(this.ids.slice(-size));
    if (!stops.some((stop) => tail.includes(stop)) || !this.mayEndAfter(this.ids.length)) return false;
    const text = this.decoded();
    const start = Math.max(this.prompt.length, this.format ? text.length - tail.length : 0);
    const found = stops.filter((stop) => text.includes(stop, start));
    if (found.length === 0) return false;
    this.finishReason = "stop";
    this.shorten(text.slice(0, Math.min(...found.map((stop) => text.indexOf(stop, start) + stop.length))));
    return true;
  }

  /** Returns whether the text still fits its format with its first tokens only. */
  mayEndAfter(count) {
    return !this.format || this.format.fits(this.ids.slice(0, count));
  }

  /** Returns the prompt as given, even if the tokenizer cannot represent all of it, and its continuation. */
  decoded(ids = this.ids) {
    return this.prompt + this.tokenizer.decode(ids).slice(this.promptLength);
  }

  /** Makes a beginning of the text the whole, without the tokens behind it. */
  shorten(text) {
    const kept = this.countTokens(text);
    this.text = text;
    this.newTokens -= this.ids.length - kept;
    this.ids.length = kept;
  }

  /** Returns the number of leading tokens that are needed for a beginning of the text; at least the prompt's. */
  countTokens(text) {
    let count = this.ids.length;
    while (count > this.promptTokens && this.decoded(this.ids.slice(0, count - 1)).startsWith(text)) count--;
    return count;
  }
}
