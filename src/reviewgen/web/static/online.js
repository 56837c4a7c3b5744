/** Starts the page of a server: the models that it serves, over HTTP. */
import { start } from "./app.js";
import { createHttpEngine } from "./http_engine.js";

start(createHttpEngine(document.baseURI));
