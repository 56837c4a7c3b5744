/** Starts the page of a server: the models that it serves, over HTTP. */
import { start } from "./app.js";
import { byId } from "./dom.js";
import { createHttpEngine } from "./http_engine.js";

/** Asks the user for an API key, which stays in this page; returns null where none is given. */
async function askForKey() {
  byId("key").returnValue = "";
  byId("key").showModal();
  await new Promise((resolve) => byId("key").addEventListener("close", resolve, { once: true }));
  return byId("key").returnValue ? byId("key-text").value : null;
}

start(createHttpEngine(document.baseURI, askForKey));
