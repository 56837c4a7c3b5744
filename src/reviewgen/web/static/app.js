/**
 * The page: connects the controls, the texts and an engine. An engine has two methods.
 *
 *   await engine.models() -> [{id, preset, conditions, defaults, hasIndex, facts: [[label, value]], card}]
 *   engine.complete(request, signal) -> AsyncIterable of
 *     {type: "token", index, text, bits, alternatives: [{text, probability, isEnd}]}
 *     {type: "end", index, reason, text, copied: [{start, end, length, source}]}
 *   request = {model, prompt, n, seed, max_tokens, temperature, top_p, min_p, conditions, novelty, max_copy, alternatives}
 *
 * What goes wrong is an Error with one plain sentence.
 */
import { openCard } from "./card.js";
import { Column } from "./column.js";
import { announce, byId, copyText, sentenceOf, showError } from "./dom.js";
import { createSettings } from "./settings.js";
import { decodeFragment, encodeFragment } from "./share.js";
import { fillLegend } from "./surprise.js";

const ALTERNATIVES = 10;
const WIDE = "(min-width: 64rem)"; // as in page.css

/** Starts the page with an engine. */
export async function start(engine) {
  let models;
  try {
    models = await engine.models();
    if (!models.length) throw new Error("There is no model here.");
  } catch (error) {
    return showError(sentenceOf(error));
  }
  return new Page(engine, models).begin();
}

class Page {
  constructor(engine, models) {
    Object.assign(this, { engine, models, running: 0, controller: null });
    this.settings = createSettings(models);
  }

  /** Connects the controls; a link's text is written at once. */
  begin() {
    byId("form").addEventListener("submit", (event) => (event.preventDefault(), this.running ? this.stop() : this.write()));
    byId("form").noValidate = true; // the page says itself what is out of range, as it does all errors
    byId("prompt").addEventListener(
      "keydown",
      (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && byId("form").requestSubmit(),
    );
    byId("about").addEventListener("click", () => openCard(this.settings.chosen()));
    byId("card").addEventListener("click", (event) => event.target === byId("card") && byId("card").close());
    byId("shade").addEventListener("change", () => byId("columns").classList.toggle("plain", !byId("shade").checked));
    byId("link-copy").addEventListener("click", () => this.copyLink());
    byId("settings").open = matchMedia(WIDE).matches;
    addEventListener("hashchange", () => this.follow(location.hash));
    fillLegend(byId("legend"));
    byId("write").disabled = false;
    if (location.hash.length > 1) this.follow(location.hash);
  }

  /** Writes what a link asks for. */
  follow(fragment) {
    try {
      this.settings.write(decodeFragment(fragment, this.models));
    } catch (error) {
      return showError(sentenceOf(error));
    }
    this.stop();
    return this.write();
  }

  /** Writes texts with the settings as they are. */
  write() {
    showError("");
    let settings;
    try {
      this.settings.drawSeed();
      settings = this.settings.read();
    } catch (error) {
      return showError(sentenceOf(error));
    }
    this.shared = settings;
    this.controller = new AbortController();
    const page = {
      signal: () => this.controller.signal,
      onShare: (request, button) => this.share(request, button),
      run: (work) => this.continue(work),
    };
    const columns = this.settings.chosen().map((model) => new Column(this.engine, model, page));
    byId("columns").replaceChildren(...columns.map((column) => column.element));
    byId("columns").classList.toggle("two", columns.length > 1);
    byId("tools").hidden = false;
    announce("Writing.");
    return this.run(() => Promise.all(columns.map((column) => column.write(requestOf(settings, column.model)))));
  }

  /** Continues a text from an alternative, as a part of what is being written or anew. */
  continue(work) {
    if (!this.running) this.controller = new AbortController();
    showError("");
    announce("Writing.");
    return this.run(work);
  }

  /** Shows that the page is writing until some work is done. */
  async run(work) {
    this.running += 1;
    byId("write").textContent = "Stop";
    try {
      await work();
    } finally {
      this.running -= 1;
      if (!this.running) byId("write").textContent = "Write";
    }
  }

  stop() {
    this.controller?.abort();
  }

  /** Shows the link to a text: that of the whole page, or of one that was continued, with what was then its beginning. */
  share(request, button) {
    const isContinued = request.prompt !== this.shared.prompt || request.n !== this.shared.n;
    const own = { ...request, second: "" };
    showError("");
    let fragment;
    try {
      fragment = encodeFragment(isContinued ? own : this.shared);
    } catch (error) {
      return showError(sentenceOf(error));
    }
    byId("link-text").value = `${location.href.replace(/#.*$/s, "")}#${fragment}`;
    byId("link-copy").textContent = "Copy the link";
    byId("link").ontoggle = (event) => event.newState === "open" && byId("link-text").select();
    return byId("link").showPopover({ source: button });
  }

  async copyLink() {
    byId("link-text").select();
    byId("link-copy").textContent = (await copyText(byId("link-text").value)) ? "Copied" : "Not allowed: press Ctrl + C";
  }
}

/** Returns what a model is asked for: a value or null for each condition that it has, and a filter only where it has an index. */
function requestOf({ second, ...settings }, model) {
  const valueOf = ({ name, values }) => values.find((value) => value.label === settings.conditions[name])?.label ?? null;
  return {
    ...settings,
    model: model.id,
    conditions: Object.fromEntries(model.conditions.map((each) => [each.name, valueOf(each)])),
    novelty: model.hasIndex ? settings.novelty : null,
    max_copy: model.hasIndex ? settings.max_copy : null,
    alternatives: ALTERNATIVES,
  };
}
