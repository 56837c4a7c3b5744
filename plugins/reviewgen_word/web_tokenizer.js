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
  const tokens = readTokens(vocab);
  const byteIds = readByteIds(tokens);
  const ranks = readMerges(vocab, merges);
  const bosId = tokens.length;
  const cache = new Map();
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  function encodePiece(piece) {
    const known = cache.get(piece);
    if (known !== undefined) return known;
    const ids = mergePairs(Array.from(encoder.encode(piece), (byte) => byteIds[byte]), ranks);
    if (cache.size < MAX_CACHED) cache.set(piece, ids);
    return ids;
  }

  function decode(ids) {
    const bytes = [];
    for (const id of ids) if (id < bosId) bytes.push(...tokens[id]);
    return decoder.decode(Uint8Array.from(bytes));
  }

  return {
    vocabSize: bosId + 2,
    bosId,
    eosId: bosId + 1,
    encode: (text) => text.replace(/\p{Cs}/gu, "\ufffd").match(PIECE)?.flatMap(encodePiece) ?? [], // no lone surrogates
    decode,
    tokenBytes: (id) => tokens[id] ?? new Uint8Array(0),
  };
}

/** Returns the bytes of each token of a vocabulary. */
function readTokens(vocab) {
  const bytes = byteOfSymbol();
  const tokens = [];
  for (const [token, id] of Object.entries(vocab)) tokens[id] = Uint8Array.from(token, (symbol) => bytes.get(symbol));
  return tokens;
}

/** Returns the byte that each symbol of GPT-2's alphabet stands for: a printable one for itself, the others from U+0100 on. */
function byteOfSymbol() {
  const isPrintable = (byte) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  const symbols = new Map();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) symbols.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte);
  return symbols;
}

/** Returns the id of each byte. */
function readByteIds(tokens) {
  const ids = new Int32Array(256);
  tokens.forEach((bytes, id) => {
    if (bytes.length === 1) ids[bytes[0]] = id;
  });
  return ids;
}

/** Returns the rank of each pair of ids that is merged, and the id of what it becomes: pair -> [rank, id]. */
function readMerges(vocab, merges) {
  const ranks = new Map();
  merges.forEach((merge, rank) => {
    const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
    ranks.set(pairKey(vocab[left], vocab[right]), [rank, vocab[left + right]]);
  });
  return ranks;
}

function pairKey(left, right) {
  return left * 0x200000 + right;
}

/** Returns ids after all merges: again and again the pair of the lowest rank, everywhere from left to right. */
function mergePairs(ids, ranks) {
  for (;;) {
    let best = null;
    for (let place = 0; place + 1 < ids.length; place++) {
      const [left, right] = [ids[place], ids[place + 1]];
      const merge = ranks.get(pairKey(left, right));
      if (merge !== undefined && (best === null || merge[0] < best.merge[0])) best = { merge, left, right };
    }
    if (best === null) return ids;
    ids = replacePair(ids, best.left, best.right, best.merge[1]);
  }
}

function replacePair(ids, left, right, merged) {
  const replaced = [];
  for (let place = 0; place < ids.length; place++) {
    const isPair = ids[place] === left && place + 1 < ids.length && ids[place + 1] === right;
    replaced.push(isPair ? merged : ids[place]);
    if (isPair) place++;
  }
  return replaced;
}
