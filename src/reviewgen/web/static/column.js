/** One model's texts, and the engine's events on their way to them. */
import { announce, create, sentenceOf, showError } from "./dom.js";
import { countText } from "./tokens.js";
import { Writing } from "./writing.js";

/** A column of the page: the texts that one model writes. */
export class Column {
  /**
   * @param {object} engine
   * @param {object} model  As the engine describes it.
   * @param {{signal: function(): AbortSignal, onShare: function, run: function}} page  signal() is that of the Stop button;
   *   run(work) shows that the page is writing until the work is done.
   */
  constructor(engine, model, page) {
    Object.assign(this, { engine, model, page });
    this.list = create("div", { class: "list" });
    this.element = create(
      "section",
      { class: "column", "aria-label": `Texts of ${model.id}` },
      create("h2", { text: model.id }),
      this.list,
    );
  }

  /** Writes the texts of a request; ends when all are written, stopped or failed. */
  async write(request) {
    const actions = {
      onShare: this.page.onShare,
      onContinue: (writing) => this.page.run(() => this.follow(writing.request, [writing])),
    };
    const writings = Array.from({ length: request.n }, (_, number) => new Writing(number, request, actions));
    this.list.replaceChildren(...writings.map((writing) => writing.element));
    await this.follow(request, writings);
  }

  /** Hands the events of a request to its texts. */
  async follow(request, writings) {
    const signal = this.page.signal();
    let reason = "stopped";
    try {
      for await (const event of this.engine.complete(request, signal)) {
        if (signal.aborted) break;
        writings[event.index]?.take(event);
      }
    } catch (error) {
      if (!signal.aborted) {
        reason = "failed";
        showError(sentenceOf(error));
      }
    }
    for (const writing of writings.filter((each) => each.isWriting)) writing.finish(reason);
    if (reason !== "failed") announce(`${signal.aborted ? "Stopped" : "Written"}: ${describe(writings)} by ${this.model.id}.`);
  }
}

function describe(writings) {
  const tokens = writings.reduce((sum, writing) => sum + writing.tokens.length, 0);
  return writings.length === 1 ? `a text of ${countText(tokens)}` : `${writings.length} texts of ${countText(tokens)}`;
}
