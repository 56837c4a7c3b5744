/** Loads a packed model, as `reviewgen.export.html` writes it: a manifest (JSON) and a blob of arrays, deflated. */
import { createPieces } from "./decoder.js";
import { createSpellings } from "./spelling.js";
import { createTensor } from "./tensors.js";

const ARRAYS = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  float32: Float32Array, float64: Float64Array,
};
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%,()*+-;.=/?@^_`{|}~"; // RFC 1924 but for & < >

/** Returns a packed model, `{manifest, readBlob}`, as one that generates, with the functions of plugins by their names. */
export async function loadModel({ manifest, readBlob }, { steppers, tokenizers }) {
  const stream = new Blob([readBlob()]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const buffer = await new Response(stream).arrayBuffer();
  const { model, tokenizer: saved, spelling, conditions, defaults } = manifest;
  const readText = (entry) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(readNumbers(buffer, entry));
  const tokenizer = tokenizers[saved.name](saved.config, mapValues(saved.files, readText));
  const tensors = mapValues(manifest.tensors, (entry) => createTensor(entry.shape, readNumbers(buffer, entry)));
  const createPart = (name, config, parts) => steppers[name](name, config, parts, createPart);
  const stepper = createPart(model.name, model.config, tensors);
  const spellingOf = createSpellings(tokenizer, readNumbers(buffer, spelling), spelling.roots, spelling.known);
  const bigrams = mapValues(manifest.bigrams, (entry) => readNumbers(buffer, entry));
  return { conditions, defaults, stepper, tokenizer, pieces: createPieces(tokenizer), spellingOf, bigrams };
}

const mapValues = (object, change) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));

/** Returns the numbers of an array; those of 16 bits (IEEE 754 binary16), and of fewer with a scale for each row, as float32. */
function readNumbers(buffer, { dtype, offset, length, scales }) {
  if (dtype === "float16") {
    const halves = new Uint16Array(buffer, offset, length);
    const widened = Uint32Array.from(halves, (bits) => ((bits & 0x8000) << 16) | ((bits & 0x7fff) << 13));
    return new Float32Array(widened.buffer).map((number) => number * 2 ** 112); // the exponents differ by it
  }
  const numbers = new ARRAYS[dtype](buffer, offset, length);
  if (scales === undefined) return numbers;
  const scaled = new Float32Array(length);
  new Float32Array(buffer, scales.offset, scales.length).forEach((scale, row, { length: rows }) => {
    for (let place = row * (length / rows); place < (row + 1) * (length / rows); place++) scaled[place] = numbers[place] * scale;
  });
  return scaled;
}

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
