/**
 * Starts the page of one file: the models that it holds, run by the engine in the browser.
 *
 * The page holds `{models: [manifest], steppers: [name], tokenizers: [name]}` in the data block "contents", the gzipped arrays of
 * model number n in base85 in "blob-n", and each stepper and tokenizer as a module of the import map.
 */
import { start } from "./app.js";
import { fromBase85 } from "./base85.js";
import { createBrowserEngine } from "./browser_engine.js";

/** Returns the functions that modules of the import map export, by name: `{lstm: createStepper}`. */
async function importAll(folder, names) {
  const modules = await Promise.all(names.map((name) => import(`${folder}/${name}`)));
  return Object.fromEntries(names.map((name, index) => [name, modules[index].default]));
}

/** Returns each model of the page as `{manifest, readBlob}`; readBlob() returns the gzipped arrays as a Uint8Array. */
function readModels(manifests) {
  return manifests.map((manifest, index) => ({
    manifest,
    readBlob: () => fromBase85(document.getElementById(`blob-${index}`).textContent.trim()),
  }));
}

const contents = JSON.parse(document.getElementById("contents").textContent);
const steppers = await importAll("stepper", contents.steppers);
const tokenizers = await importAll("tokenizer", contents.tokenizers);
start(createBrowserEngine(readModels(contents.models), { steppers, tokenizers }));
