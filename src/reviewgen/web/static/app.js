/**
 * The page: connects the controls, the texts and an engine. An engine has two methods.
 *
 *   await engine.models() -> [{id, conditions, defaults, hasIndex?, facts: [[label, value]], card}]
 *   engine.complete(request, signal) -> AsyncIterable of
 *     {type: "token", index, text, bits, alternatives: [{text, probability, isEnd}], and of a model with attention, place among the
 *      ids and what each head read, reads: [{name, tokens: [{place, text, weight}]}]}
 *     {type: "back", index, text}, where tokens were taken back: the text that is left
 *     {type: "end", index, reason, text, copied: [{start, end, length, source}]}
 *   request = {model, prompt, n, seed, max_tokens, temperature, top_p, min_p, conditions, include, exclude, choices, novelty, max_copy,
 *     alternatives}
 * What goes wrong is an Error with one plain sentence.
 */
import { attempt, byId, copyText, countText, create, showError } from "./elements.js";
import { decodeFragment, encodeFragment, labelsOf } from "./links.js";
import { createSettings } from "./settings.js";
import { Writing } from "./writing.js";

const ALTERNATIVES = 10;
const INTERVAL = 80; // milliseconds between changes of the page: to draw it after each token takes longer than the token

/** Starts the page with an engine. */
export function start(engine) {
  return attempt(async () => {
    const models = await engine.models();
    if (!models.length) throw new Error("There is no model here.");
    return new Page(engine, models);
  });
}

class Page {
  /** Connects the controls; a link's text is written at once, and without a link a first text, if the models are in the page. */
  constructor(engine, models) {
    Object.assign(this, { engine, models, running: 0, controller: null, settings: createSettings(models) });
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running) this.controller.abort();
      else attempt(() => this.write());
    });
    byId("prompt").addEventListener("keydown", ({ key, ctrlKey, metaKey }) => {
      if (key === "Enter" && (ctrlKey || metaKey)) byId("form").requestSubmit();
    });
    byId("about").addEventListener("click", () => openCard(this.settings.chosen()));
    byId("card").addEventListener("click", ({ target }) => target === byId("card") && byId("card").close());
    byId("link-copy").addEventListener("click", async () => {
      byId("link-text").select();
      byId("link-copy").textContent = (await copyText(byId("link-text").value)) ? "Copied" : "Not allowed: press Ctrl + C";
    });
    byId("settings").open = matchMedia("(min-width: 64rem)").matches; // as in page.css
    addEventListener("hashchange", () => this.follow());
    byId("write").disabled = false;
    if (location.hash.length > 1) this.follow();
    else if (byId("contents")) attempt(() => this.write());
  }

  /** Writes what the link in the address asks for. */
  follow() {
    attempt(() => {
      this.settings.write(decodeFragment(location.hash, this.models));
      this.controller?.abort();
      this.write();
    });
  }

  /** Writes texts with the settings as they are, one or two models side by side; throws an Error if one is out of range. */
  write() {
    this.shared = this.settings.read();
    this.controller = new AbortController();
    const columns = this.settings.chosen().map((model) => this.createColumn(model, requestOf(this.shared, model)));
    byId("columns").replaceChildren(...columns.map(({ element }) => element));
    this.run(columns);
  }

  /** Returns the texts of a model, yet to be written: `{model, request, writings, element}`. */
  createColumn(model, request) {
    const onShare = (own, button) => this.share(own, button);
    const onContinue = (writing) => {
      if (!this.running) this.controller = new AbortController(); // not a part of what is being written
      this.run([{ model, request: writing.request, writings: [writing] }]);
    };
    const writings = Array.from({ length: request.n }, (_, number) => new Writing(number, request, { onShare, onContinue }));
    const list = create("div", { class: "list" }, ...writings.map(({ element }) => element));
    const label = { class: "column", "aria-label": `Texts of ${model.id}` };
    return { model, request, writings, element: create("section", label, create("h2", { text: model.id }), list) };
  }

  /** Writes texts, and shows meanwhile that the page is writing. */
  async run(columns) {
    showError(null);
    byId("status").textContent = "Writing."; // for a screen reader
    byId("write").textContent = "Stop";
    this.running += 1;
    await Promise.all(columns.map((column) => this.complete(column, this.controller.signal)));
    this.running -= 1;
    if (!this.running) byId("write").textContent = "Write";
  }

  /** Hands the events of a request to its texts, until all are written, stopped or failed. */
  async complete({ model, request, writings }, signal) {
    let [events, timer, reason] = [[], 0, "stopped"];
    const handOver = () => {
      writings.forEach((writing, number) => writing.take(events.filter(({ index }) => index === number)));
      [events, timer] = [[], 0];
    };
    try {
      for await (const event of this.engine.complete(request, signal)) {
        if (signal.aborted) break;
        events.push(event);
        timer ||= setTimeout(handOver, INTERVAL);
      }
    } catch (error) {
      if (!signal.aborted) {
        reason = "failed";
        showError(error);
      }
    }
    clearTimeout(timer);
    handOver();
    for (const writing of writings.filter((each) => each.isWriting)) writing.finish(reason);
    if (reason === "failed") return;
    const texts = writings.length === 1 ? "a text" : `${writings.length} texts`;
    const tokens = countText(writings.flatMap((writing) => writing.tokens).length, "token");
    byId("status").textContent = `${signal.aborted ? "Stopped" : "Written"}: ${texts} of ${tokens} by ${model.id}.`;
  }

  /** Shows the link to a text: that of the whole page, or of one that was continued, with what was then its beginning. */
  share(request, source) {
    const isContinued = ["prompt", "n", "choices"].some((name) => request[name] !== this.shared[name]);
    attempt(() => {
      const fragment = encodeFragment(isContinued ? { ...request, second: "" } : this.shared);
      byId("link-text").value = `${location.href.replace(/#.*$/s, "")}#${fragment}`;
      byId("link-copy").textContent = "Copy the link";
      byId("link").ontoggle = ({ newState }) => newState === "open" && byId("link-text").select();
      byId("link").showPopover({ source });
    });
  }
}

/** Returns what a model is asked for: a value or null for each condition that it has, and a filter only where it has an index. */
function requestOf({ second, ...settings }, model) {
  const isValue = (each) => each.kind === "text" || labelsOf(each).includes(settings.conditions[each.name]);
  const valueOf = (each) => (isValue(each) ? (settings.conditions[each.name] ?? null) : null);
  const conditions = Object.fromEntries(model.conditions.map((each) => [each.name, valueOf(each)]));
  const copying = model.hasIndex ? {} : { novelty: null, max_copy: null };
  return { ...settings, ...copying, model: model.id, conditions, alternatives: ALTERNATIVES };
}

/** Opens the dialog with the facts of some models and their cards, without the block of metadata that begins a card. */
function openCard(models) {
  byId("card-title").textContent = models.length > 1 ? "About the models" : "About the model";
  const sections = models.map(({ id, facts, card }) => {
    const list = facts.flatMap(([label, value]) => [create("dt", { text: label }), create("dd", { text: String(value) })]);
    const text = card.replace(/^---\n[\s\S]*?\n---\n+/, "");
    const whole = create("pre", { class: "card-text", tabindex: 0, text });
    const details = card ? [create("details", {}, create("summary", { text: "The whole model card" }), whole)] : [];
    return create("section", {}, create("h3", { text: id }), create("dl", {}, ...list), ...details);
  });
  byId("card-content").replaceChildren(...sections);
  byId("card").showModal();
}
