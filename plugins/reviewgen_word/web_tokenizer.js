/**
 * The tokenizer `word` in JavaScript: byte-level byte-pair encoding that never merges across words, from `tokenizer.json`.
 *
 * The same cut into words, numbers, punctuation and spaces (GPT-2's regular expression) and the same merges as in the library
 * `tokenizers`, so the ids are those of `tokenizer.py`. bos and eos are the two ids after the BPE's own.
 */

const WHITE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Unicode's White_Space
const PIECE = new RegExp(
  `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${WHITE}\\p{L}\\p{N}]+|[${WHITE}]+(?![^${WHITE}])|[${WHITE}]+`,
  "gu",
);
const MAX_CACHED = 1 << 16; // pieces whose ids are kept

/** Returns the tokenizer of a model; `files` are the texts of its files by name. */
export default function createTokenizer(config, files) {
  const { vocab, merges } = JSON.parse(files["tokenizer.json"]).model;
  const bytes = byteOfSymbol();
  const byteIds = Array.from(bytes.keys(), (symbol) => vocab[symbol]);
  const tokens = []; // the bytes of each
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
    encode: (text) => text.replace(/\p{Cs}/gu, "\ufffd").match(PIECE)?.flatMap(encodePiece) ?? [], // no lone surrogates
    decode: (ids) => decoder.decode(Uint8Array.from(ids.flatMap((id) => [...tokenBytes(id)]))),
    tokenBytes,
  };
}

/** Returns the byte, from 0 on, that each symbol of GPT-2's alphabet stands for: printable ones themselves, others U+0100 and on. */
function byteOfSymbol() {
  const isPrintable = (byte) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const symbols = new Map();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) symbols.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte);
  return symbols;
}

/** Returns for each pair of ids that is merged its rank, and the id of what it becomes. */
function readMerges(vocab, merges) {
  const pairs = new Map();
  merges.forEach((merge, rank) => {
    const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
    pairs.set(pairKey(vocab[left], vocab[right]), { rank, merged: vocab[left + right] });
  });
  return pairs;
}

const pairKey = (left, right) => left * 0x200000 + right;

/** Returns ids after all merges: again and again the pair of the lowest rank, everywhere from left to right. */
function mergePairs(ids, pairs) {
  for (;;) {
    const found = ids.map((left, place) => pairs.get(pairKey(left, ids[place + 1]))); // of the last id, nothing: the key is NaN
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
