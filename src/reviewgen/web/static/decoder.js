/**
 * The decoding loop of one text: a row with a prompt in, one token after another, as in `reviewgen.generation.decode`.
 *
 * Every row has its own random stream, seeded from the seed and the row's number. A token that may not follow is sampled again
 * from those that may; if none is left, it is taken nevertheless. Knows a model only by its tokenizer and stepper.
 */

import { matches, splitPrompt } from "./prompts.js";
import { MAX_NUMBERS, canPropose, sampleByProposals } from "./proposing.js";
import { createRandom } from "./random.js";
import { DEAD_END, NOTHING_LEFT, NOT_A_NUMBER, looksBack, sampleToken, samplingParams } from "./sampling.js";
import { follows, followAll, noPlace, startOfText } from "./spelling.js";
import { checkEnd, finish } from "./stopping.js";

/**
 * Returns the row of one text.
 *
 * `ids` are those of the text so far; `rest` is the end of the prompt that is not in them yet: the next tokens must match it, and
 * may run on. `forced` are ids to append next, whatever the model predicts. `place` is that among the known words.
 */
export function createRow(model, prompt, conditionIds, seed, number) {
  const { ids, rest, length } = splitPrompt(model.tokenizer, model.pieces, prompt);
  return {
    prompt,
    prefix: [model.tokenizer.bosId, ...conditionIds],
    ids,
    rest,
    promptLength: length,
    promptTokens: ids.length,
    newTokens: 0,
    forced: [],
    isAtDeadEnd: false,
    finishReason: null,
    text: "",
    place: null,
    random: createRandom(seed, number),
  };
}

/**
 * Extends a row until it is finished.
 * @param {{tokenizer, stepper, pieces}} model
 * @param {object} row As `createRow` returns it; updated.
 * @param {object} config The generation settings, with the names of `GenerationConfig`.
 * @param {object|null} spelling The words that the text may contain.
 * @yields {{token: number, logits: ArrayLike<number>}} Every token that is not only a part of the prompt, eos included.
 */
export function* decode(model, row, config, spelling) {
  const call = { ...model, config, spelling, params: samplingParams(config, model.tokenizer) };
  if (config.max_new_tokens === 0) {
    finishUnextended(row, call);
    return;
  }
  let { logits, state } = model.stepper.forward([...row.prefix, ...row.ids], model.stepper.initialState());
  while (row.finishReason === null) {
    const [before, isForced] = [row.newTokens, row.forced.length > 0];
    const token = isPastPrompt(row) && !row.isAtDeadEnd ? sampleNext(row, logits, state, call) : step(row, logits, call);
    const isNew = token >= 0 && !isForced && (row.newTokens !== before || row.finishReason !== null);
    if (isNew) yield { token, logits };
    if (row.finishReason === null && token !== DEAD_END) ({ logits, state } = model.stepper.forward([row.ids.at(-1)], state));
  }
}

function isPastPrompt(row) {
  return row.rest === "" && row.forced.length === 0;
}

/** Finishes a row that gets no new token: it is its prompt. */
function finishUnextended(row, { tokenizer }) {
  row.ids.push(...tokenizer.encode(row.rest));
  [row.text, row.rest, row.finishReason] = [row.prompt, "", "length"];
}

/** Gives a row that is past its prompt a token; returns it, or a code. */
function sampleNext(row, logits, state, call) {
  const { stepper, params, spelling } = call;
  const place = placeOf(row, spelling);
  const text = seenBy(params, row);
  const sampled = canPropose(stepper, params)
    ? sampleByProposals(stepper, state, logits, text, row.newTokens, row.random.peek(MAX_NUMBERS), params, spelling, place)
    : sampleToken(logits, text, row.newTokens, row.random.peek(1)[0], params, spelling, place);
  row.random.use(sampled.used ?? 1);
  row.isAtDeadEnd = sampled.token === DEAD_END;
  if (sampled.token >= 0) row.place = sampled.place;
  append(row, sampled.token, call);
  return sampled.token;
}

/** Gives a row a token that matches its prompt, or one that makes an unknown word; returns it, or a code. */
function step(row, logits, call) {
  const { params, tokenizer } = call;
  const table = row.rest === "" ? logits : maskPrompt(row, logits, call);
  const place = isPastPrompt(row) ? placeOf(row, call.spelling) : noPlace();
  let token = sampleRow(row, table, call, place);
  if (token === NOTHING_LEFT && row.rest !== "") { // penalties rule out every match: use the tokenizer's tokens
    [row.forced, row.rest] = [tokenizer.encode(row.rest), ""];
  } else if (token === DEAD_END) {
    token = sampleRow(row, table, call, noPlace());
  }
  if (row.forced.length > 0) {
    token = row.forced.shift();
    follow(row, token, call);
    row.ids.push(token);
    row.promptTokens = row.ids.length;
    return token;
  }
  if (token >= 0) row.isAtDeadEnd = false;
  if (token >= 0 && token !== params.eosId) follow(row, token, call);
  append(row, token, call);
  return token;
}

function sampleRow(row, logits, { params, spelling }, place) {
  const text = seenBy(params, row);
  const { token } = sampleToken(logits, text, row.newTokens, row.random.peek(1)[0], params, spelling, place);
  row.random.use(1);
  return token;
}

/** Returns the ids that the penalties look back at. */
function seenBy(params, row) {
  return looksBack(params) ? [...row.prefix, ...row.ids] : [];
}

/** Returns the logits without the tokens that do not match the rest of the prompt. */
function maskPrompt(row, logits, { pieces, tokenizer, spelling, params }) {
  const table = new Float64Array(logits).fill(-Infinity, tokenizer.vocabSize);
  const place = placeOf(row, spelling);
  const isSpelled = (token) => spelling === null || follows(spelling, place, token, params.eosId) !== null;
  let allowed = pieces.texts.map((_, token) => token).filter((token) => matches(pieces.texts[token], row.rest));
  allowed = allowed.filter((token) => table[token] > -Infinity);
  const known = allowed.filter(isSpelled);
  if (known.length > 0) allowed = known;
  if (allowed.length === 0) { // no match has a probability: use the tokenizer's tokens
    [row.forced, row.rest] = [tokenizer.encode(row.rest), ""];
    return table;
  }
  const masked = new Float64Array(table.length).fill(-Infinity);
  for (const token of allowed) masked[token] = table[token];
  return masked;
}

/** Appends a sampled token to a row, and finishes the row if it ends there. */
function append(row, token, { tokenizer, pieces, config }) {
  if (token === NOT_A_NUMBER) throw new Error("The model's numbers are damaged: its logits are not finite. Export it again.");
  if (token === NOTHING_LEFT) finish(row, tokenizer, config, "stuck");
  if (token === tokenizer.eosId) finish(row, tokenizer, config, "end");
  if (token < 0 || row.finishReason !== null) return;
  const [rest, piece] = [row.rest, pieces.texts[token]];
  row.ids.push(token);
  row.newTokens += Number(piece.length > rest.length || rest === "");
  row.rest = rest.slice(piece.length);
  if (rest !== "") row.promptTokens = row.ids.length;
  if (row.rest === "") checkEnd(row, tokenizer, config);
}

/** Returns the place of a row among the known words. */
function placeOf(row, spelling) {
  if (spelling === null) return noPlace();
  row.place ??= followAll(spelling, startOfText(spelling), row.ids);
  return row.place;
}

function follow(row, token, { spelling }) {
  if (spelling !== null) row.place = followAll(spelling, placeOf(row, spelling), [token]);
}
