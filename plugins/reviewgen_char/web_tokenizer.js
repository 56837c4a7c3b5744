/**
 * The tokenizer `char` in JavaScript: one id per known character; other characters become the hexadecimal digits of their bytes.
 *
 * The ids are those of `tokenizer.py`: 0 and 1 are the beginning and the end of a text, 2 to 17 are the digits, and the others are
 * the characters in the order of their code points.
 */

const [BOS, EOS, FIRST_DIGIT, FIRST_CHARACTER] = [0, 1, 2, 18];
const [HALF, NO_BYTE] = [256, 255]; // tokenBytes returns 256 + n for half a byte, the digit n; no text contains the byte 255

/** Returns the tokenizer of a model; `files` has the content of each of its files by name. */
export default function createTokenizer(config, files) {
  const characters = [...JSON.parse(files["characters.json"]).characters];
  const ids = new Map(characters.map((character, place) => [character, FIRST_CHARACTER + place]));
  const digits = (character) => [...toBytes(character)].flatMap((byte) => [FIRST_DIGIT + (byte >> 4), FIRST_DIGIT + (byte & 15)]);

  function tokenBytes(id) {
    if (id < FIRST_DIGIT) return [];
    return id < FIRST_CHARACTER ? [HALF + id - FIRST_DIGIT] : [...toBytes(characters[id - FIRST_CHARACTER])];
  }

  return {
    vocabSize: FIRST_CHARACTER + characters.length,
    bosId: BOS,
    eosId: EOS,
    encode: (text) => [...text].flatMap((character) => ids.get(character) ?? digits(character)),
    decode: (tokens) => decodeBytes(joinHalves(tokens.flatMap(tokenBytes))),
    tokenBytes,
  };
}

/** Returns the UTF-8 bytes of a character; a surrogate (half a character) is written as three bytes. */
function toBytes(character) {
  const code = character.codePointAt(0);
  if (code < 0xd800 || code > 0xdfff) return new TextEncoder().encode(character);
  return [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)];
}

/** Joins each two halves of a byte; a half without a partner becomes a byte that is not valid in UTF-8. */
function joinHalves(symbols) {
  const bytes = [];
  for (let place = 0; place < symbols.length; place++) {
    const [first, second] = [symbols[place], symbols[place + 1]];
    if (first < HALF) bytes.push(first);
    else bytes.push(second >= HALF ? 16 * (first - HALF) + symbols[++place] - HALF : NO_BYTE);
  }
  return bytes;
}

/** Decodes UTF-8 including surrogates; invalid bytes become U+FFFD. */
function decodeBytes(bytes) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const parts = [];
  let start = 0;
  for (let place = 0; place < bytes.length; place++) {
    const [first, second, third] = bytes.slice(place, place + 3);
    if (first !== 0xed || !(second >= 0xa0 && second <= 0xbf) || !(third >= 0x80 && third <= 0xbf)) continue;
    parts.push(decoder.decode(Uint8Array.from(bytes.slice(start, place))));
    parts.push(String.fromCharCode(0xd000 | ((second & 63) << 6) | (third & 63)));
    start = place + 3;
  }
  return parts.join("") + decoder.decode(Uint8Array.from(bytes.slice(start)));
}
