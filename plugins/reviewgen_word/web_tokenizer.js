/**
 * The tokenizer `word` in JavaScript: byte-level byte-pair encoding that never merges across words, from `tokenizer.json`.
 *
 * GPT-2's regular expression cuts a text into words, numbers, punctuation and spaces, and the pairs in each are merged as in the
 * library `tokenizers`. So the ids are those of `tokenizer.py`. bos and eos are the two ids after those of the BPE.
 */

const WHITE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Unicode's White_Space
const PIECE = new RegExp(
  `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${WHITE}\\p{L}\\p{N}]+|[${WHITE}]+(?![^${WHITE}])|[${WHITE}]+`,
  "gu",
);
const MAX_CACHED = 1 << 16; // maximum number of pieces whose ids are cached

/** Returns the tokenizer of a model; `files` has the content of each of its files by name. */
export default function createTokenizer(config, files) {
  const { vocab, merges } = JSON.parse(files["tokenizer.json"]).model;
  const bytes = byteOfSymbol();
  const byteIds = Array.from(bytes.keys(), (symbol) => vocab[symbol]);
  const tokens = []; // the bytes of each token, by id
  for (const [token, id] of Object.entries(vocab)) tokens[id] = Uint8Array.from(token, (symbol) => bytes.get(symbol));
  const pairs = readMerges(vocab, merges);
  const bosId = tokens.length;
  const cache = new Map();
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  function encodePiece(piece) {
    const known = cache.get(piece);
    if (known !== undefined) return known;
    const ids = mergePairs(Array.from(encoder.encode(piece), (byte) => byteIds[byte]), pairs);
    if (cache.size < MAX_CACHED) cache.set(piece, ids);
    return ids;
  }

  const tokenBytes = (id) => tokens[id] ?? new Uint8Array(0);

  return {
    vocabSize: bosId + 2,
    bosId,
    eosId: bosId + 1,
    encode: (text) => text.replace(/\p{Cs}/gu, "\ufffd").match(PIECE)?.flatMap(encodePiece) ?? [], // replaces lone surrogates
    decode: (ids) => decoder.decode(Uint8Array.from(ids.flatMap((id) => [...tokenBytes(id)]))),
    tokenBytes,
  };
}

/** Returns the byte of each symbol of GPT-2's alphabet, in order: the character itself if printable, else one from U+0100 on. */
function byteOfSymbol() {
  const isPrintable = (byte) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const symbols = new Map();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) symbols.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte);
  return symbols;
}

/** Returns the rank of each pair of ids that is merged, and the id of the merged token. */
function readMerges(vocab, merges) {
  const pairs = new Map();
  merges.forEach((merge, rank) => {
    const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
    pairs.set(pairKey(vocab[left], vocab[right]), { rank, merged: vocab[left + right] });
  });
  return pairs;
}

const pairKey = (left, right) => left * 0x200000 + right;

/** Merges ids: while there are pairs to merge, it merges all of the lowest rank, from left to right. */
function mergePairs(ids, pairs) {
  for (;;) {
    const found = ids.map((left, place) => pairs.get(pairKey(left, ids[place + 1]))); // the last id has no pair: its key is NaN
    let best;
    for (const pair of found) if (pair && !(pair.rank >= best?.rank)) best = pair;
    if (best === undefined) return ids;
    const replaced = [];
    for (let place = 0; place < ids.length; place++) {
      const isPair = found[place] === best;
      replaced.push(isPair ? best.merged : ids[place]);
      if (isPair) place++;
    }
    ids = replaced;
  }
}
