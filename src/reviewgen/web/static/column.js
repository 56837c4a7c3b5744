/** One model's texts, and the engine's events on their way to them. */
import { announce, create, sentenceOf, showError } from "./dom.js";
import { countText } from "./tokens.js";
import { Writing } from "./writing.js";

const INTERVAL = 80; // milliseconds between changes of the page: to draw it after each token takes longer than the token

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
    const queue = createQueue((events) => writings.forEach((writing, index) => writing.take(events.filter((event) => event.index === index))));
    let reason = "stopped";
    try {
      for await (const event of this.engine.complete(request, signal)) {
        if (signal.aborted) break;
        queue.add(event);
      }
    } catch (error) {
      if (!signal.aborted) {
        reason = "failed";
        showError(sentenceOf(error));
      }
    }
    queue.flush();
    for (const writing of writings.filter((each) => each.isWriting)) writing.finish(reason);
    if (reason !== "failed") announce(`${signal.aborted ? "Stopped" : "Written"}: ${describe(writings)} by ${this.model.id}.`);
  }
}

/** Returns a queue that hands over what was added at once, or what came since if it did so less than INTERVAL ago. */
function createQueue(handOver) {
  let [events, timer, last] = [[], null, -Infinity];
  const flush = () => {
    clearTimeout(timer);
    const ready = events;
    [events, timer, last] = [[], null, performance.now()];
    handOver(ready);
  };
  const add = (event) => {
    events.push(event);
    timer ??= setTimeout(flush, Math.max(0, last + INTERVAL - performance.now()));
  };
  return { add, flush };
}

function describe(writings) {
  const tokens = writings.reduce((sum, writing) => sum + writing.tokens.length, 0);
  return writings.length === 1 ? `a text of ${countText(tokens)}` : `${writings.length} texts of ${countText(tokens)}`;
}
