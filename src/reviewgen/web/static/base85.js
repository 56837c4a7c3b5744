/** Bytes as text: base85, in which four bytes are five characters (of base64, three are four). */

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%,()*+-;.=/?@^_`{|}~"; // those of RFC 1924 but for & < >

/** Returns the bytes of a base85 text: five characters, the highest digit first, are four bytes; the last ones may be fewer. */
export function fromBase85(text) {
  const values = new Uint8Array(128);
  for (let value = 0; value < DIGITS.length; value++) values[DIGITS.charCodeAt(value)] = value;
  const bytes = new DataView(new ArrayBuffer(4 * Math.ceil(text.length / 5)));
  for (let place = 0, start = 0; start < text.length; place += 4, start += 5) {
    let word = 0;
    for (let next = start; next < start + 5; next++) word = 85 * word + (next < text.length ? values[text.charCodeAt(next)] : 84);
    bytes.setUint32(place, word);
  }
  return new Uint8Array(bytes.buffer, 0, Math.floor((text.length * 4) / 5));
}
