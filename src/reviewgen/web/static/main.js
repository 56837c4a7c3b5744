/**
 * Starts the page: with the models that it holds, run by the engine in the browser, or else with those of its server.
 *
 * A page with models holds `{models: [manifest], steppers: [name], tokenizers: [name]}` in the data block "contents", the deflated
 * arrays of model number n in base85 in "blob-n", and each stepper and tokenizer as a module of the import map.
 */
import { start } from "./app.js";
import { createBrowserEngine } from "./browser_engine.js";
import { byId } from "./elements.js";
import { createHttpEngine } from "./http_engine.js";
import { fromBase85 } from "./model.js";

/** Returns the functions that modules of the import map export, by name: `{lstm: createStepper}`. */
async function importAll(folder, names) {
  const modules = await Promise.all(names.map((name) => import(`${folder}/${name}`)));
  return Object.fromEntries(names.map((name, index) => [name, modules[index].default]));
}

/** Asks the user for an API key, which stays in this page; returns null where none is given. */
async function askForKey() {
  byId("key").returnValue = "";
  byId("key").showModal();
  await new Promise((resolve) => byId("key").addEventListener("close", resolve, { once: true }));
  return byId("key").returnValue ? byId("key-text").value : null;
}

if (byId("contents")) {
  const contents = JSON.parse(byId("contents").textContent);
  const readBlob = (number) => fromBase85(byId(`blob-${number}`).textContent);
  const packed = contents.models.map((manifest, number) => ({ manifest, readBlob: () => readBlob(number) }));
  const steppers = await importAll("stepper", contents.steppers);
  const tokenizers = await importAll("tokenizer", contents.tokenizers);
  start(createBrowserEngine(packed, { steppers, tokenizers }));
} else {
  start(createHttpEngine(document.baseURI, askForKey));
}
