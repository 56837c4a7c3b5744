/**
 * Loads a packed model, as `reviewgen.export.packing` writes it: a manifest (JSON) and a blob of arrays, gzipped.
 *
 * Knows steppers and tokenizers only as functions that it is given, by the names that the manifest has.
 */

import { createPieces } from "./prompts.js";
import { areWhole, createSpelling } from "./spelling.js";

const ARRAYS = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  float32: Float32Array, float64: Float64Array,
};

/** Returns the arrays of a packed model. */
export function unpack(blob) {
  const stream = new Blob([blob]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/**
 * Returns a model that generates.
 * @param {object} manifest
 * @param {ArrayBuffer} buffer The blob of arrays.
 * @param {{steppers: Object<string, Function>, tokenizers: Object<string, Function>}} plugins By the name of model or tokenizer.
 */
export function loadModel(manifest, buffer, { steppers, tokenizers }) {
  const tensors = Object.fromEntries(
    Object.entries(manifest.tensors).map(([name, entry]) => [name, { shape: entry.shape, data: readTensor(buffer, entry) }]),
  );
  const createPart = (name, config, parts) => find(steppers, name, "model")(name, config, parts, createPart);
  const { tokenizer: saved, model } = manifest;
  const readText = (entry) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(readTensor(buffer, entry));
  const files = Object.fromEntries(Object.entries(saved.files).map(([name, entry]) => [name, readText(entry)]));
  const tokenizer = find(tokenizers, saved.name, "tokenizer")(saved.config, files);
  return {
    conditions: manifest.conditions,
    generation: manifest.generationConfig,
    stepper: createPart(model.name, model.config, tensors),
    tokenizer,
    pieces: createPieces(tokenizer),
    spelling: createSpeller(tokenizer, readLexicon(buffer, manifest.spelling)),
  };
}

function find(factories, name, kind) {
  const factory = factories[name];
  if (factory === undefined) throw new Error(`This page has no ${kind} ${name}. Export the model again.`);
  return factory;
}

/** Returns the numbers of a tensor; those of 16 bits, and of 8 bits with scales, as float32. */
function readTensor(buffer, entry) {
  if (entry.dtype === "float16") return widenHalves(new Uint16Array(buffer, entry.offset, entry.length));
  const numbers = new (find(ARRAYS, entry.dtype, "type of numbers"))(buffer, entry.offset, entry.length);
  if (entry.scales === undefined) return numbers;
  return scaleRows(numbers, new Float32Array(buffer, entry.scales.offset, entry.scales.length));
}

function scaleRows(numbers, scales) {
  const scaled = new Float32Array(numbers.length);
  const width = numbers.length / Math.max(1, scales.length);
  for (let row = 0; row < scales.length; row++) {
    for (let place = row * width; place < (row + 1) * width; place++) scaled[place] = numbers[place] * scales[row];
  }
  return scaled;
}

/** Returns numbers of 16 bits (IEEE 754 binary16) as float32. */
function widenHalves(halves) {
  const table = new Float32Array(1 << 16);
  for (let bits = 0; bits < table.length; bits++) {
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else table[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }
  return Float32Array.from(halves, (bits) => table[bits]);
}

/** Returns the automata of the known words and of what stands between them; null for a model without a lexicon. */
function readLexicon(buffer, entries) {
  if (entries === null) return null;
  return Object.fromEntries(
    Object.entries(entries).map(([part, entry]) => [part, { nodes: readTensor(buffer, entry), root: entry.root }]),
  );
}

/** Returns a function that gives the spelling for a setting of `words`; made when first needed. */
function createSpeller(tokenizer, lexicon) {
  const { tokenBytes, vocabSize } = tokenizer;
  const made = {};
  return (words) => {
    if (words === "any") {
      made.any ??= { spelling: areWhole(tokenBytes, vocabSize) ? null : createSpelling(tokenBytes, vocabSize, null) };
      return made.any.spelling;
    }
    if (lexicon === null) throw new Error("This model has no list of known words, which words=known needs. Set words=any.");
    made.known ??= createSpelling(tokenBytes, vocabSize, lexicon);
    return made.known;
  };
}
