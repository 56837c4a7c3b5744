/**
 * One text as it is written: each token over its surprise, copied spans underlined. A click on a token, or the arrow keys and
 * Enter, open the microscope.
 *
 * The tokens are plain text to a screen reader, so that it reads sentences; only the one that the arrow keys have reached is a
 * button.
 */
import { copyText, create, showError } from "./dom.js";
import { closeMicroscope, firstBox, isOpenOn, openMicroscope } from "./microscope.js";
import { bitsText, shadeOf } from "./surprise.js";
import { addToken, countText, cutBySpans, fitTokens, spoken } from "./tokens.js";

const REASONS = { length: "reached the length", stopped: "stopped", time: "out of time", stuck: "no token was left" };

/** One text of a column. */
export class Writing {
  /**
   * @param {number} number  Which text of the column, from 0.
   * @param {object} request  What the engine is asked for; a text that is continued has one of its own.
   * @param {{onContinue: function(Writing), onShare: function(object, HTMLElement)}} actions
   */
  constructor(number, request, actions) {
    Object.assign(this, {
      number,
      request,
      actions,
      prompt: request.prompt,
      tokens: [],
      copied: [],
      spans: [],
      waiting: 0,
      first: 0,
    });
    this.isWriting = true;
    this.isEnded = false; // by the user
    this.build();
    this.draw();
  }

  /** The text so far. */
  get text() {
    return this.prompt + this.tokens.map((token) => token.text).join("");
  }

  build() {
    this.facts = create("p", { class: "facts" });
    this.notes = create("div", { class: "notes" });
    this.body = create("div", {
      class: "written",
      tabindex: -1,
      onclick: (event) => this.onClick(event),
      onkeydown: (event) => this.onKey(event),
    });
    const copy = create("button", { type: "button", text: "Copy", onclick: () => this.copy(copy) });
    const share = create("button", {
      type: "button",
      text: "Share",
      "aria-haspopup": "dialog",
      onclick: () => this.share(share),
    });
    const title = create("h3", { text: `Text ${this.number + 1}` });
    const buttons = create("span", { class: "buttons" }, copy, share);
    this.element = create("article", { class: "text" }, create("header", {}, title, buttons), this.body, this.facts, this.notes);
  }

  async copy(button) {
    button.textContent = (await copyText(this.text)) ? "Copied" : "Not allowed";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }

  /** Shows the link to the text; there is none to one that a user has ended. */
  share(button) {
    if (!this.isEnded) return this.actions.onShare(this.request, button);
    return showError("There is no link to a text that you have ended: a link would write on. Copy it instead.");
  }

  /** Takes events of the engine. */
  take(events) {
    const count = this.tokens.length;
    for (const event of events.filter(({ type }) => type === "token")) {
      this.waiting = addToken(this.tokens, event, this.waiting, this.first, this.request.prompt);
    }
    const end = events.find(({ type }) => type === "end");
    if (end) return this.finish(end.reason, end.text, end.copied);
    this.body.append(...this.tokens.slice(count).map((_, index) => this.span(count + index)));
    if (count === 0 && this.spans.length) this.setCurrent(0);
  }

  /** Ends the text: what the engine cut off goes, and copied spans are marked; an open microscope now lets alternatives be picked. */
  finish(reason, text = this.text, copied = []) {
    this.isWriting = false;
    this.tokens = fitTokens(text, this.prompt, this.tokens);
    this.copied = copied;
    this.reason = reason;
    const open = this.spans.findIndex(isOpenOn);
    this.draw();
    if (this.spans[open]) this.open(open);
    else if (open >= 0) this.leaveMicroscope();
  }

  /** Closes the microscope on a token that is gone. */
  leaveMicroscope() {
    closeMicroscope();
    this.focus();
  }

  /** Gives the focus to the current token, or to a text without tokens. */
  focus() {
    (this.spans[this.current] ?? this.body).focus({ preventScroll: true });
  }

  /** Draws all anew; the focus stays in the text. */
  draw() {
    const hasFocus = this.body.contains(document.activeElement);
    this.spans = [];
    this.body.classList.toggle("writing", this.isWriting);
    this.body.replaceChildren(create("span", { class: "prompt-text", text: this.prompt }));
    let place = this.prompt.length;
    for (let index = 0; index < this.tokens.length; index++) {
      this.body.append(this.span(index, place));
      place += this.tokens[index].text.length;
    }
    if (this.tokens.length) this.setCurrent(Math.min(this.current ?? 0, this.tokens.length - 1));
    if (hasFocus) this.focus();
    this.drawFacts();
  }

  /** Returns the element of a token. */
  span(index, place = 0) {
    const token = this.tokens[index];
    const span = create("span", { class: token.picked ? "token picked" : "token", tabindex: -1 });
    const lead = token.text.trim() ? token.text.match(/^\s*/)[0] : ""; // not shaded, so that no shade stands at the end of a line
    const ink = create("span", { class: `s${shadeOf(token.bits)}` });
    span.append(...this.pieces(place, lead), ink);
    ink.append(...this.pieces(place + lead.length, token.text.slice(lead.length)));
    this.spans[index] = span;
    return span;
  }

  /** Returns a part of the text, with what is copied in it underlined. */
  pieces(place, text) {
    const pieces = this.copied.length ? cutBySpans(place, text, this.copied) : [{ text, span: null }];
    return pieces.map((piece) => (piece.span ? create("mark", { text: piece.text }) : piece.text));
  }

  /** Returns the copied span that a token is part of; null if it is not copied. */
  copiedAt(index) {
    const place = this.prompt.length + this.tokens.slice(0, index).reduce((sum, token) => sum + token.text.length, 0);
    return this.copied.find((span) => span.start < place + this.tokens[index].text.length && span.end > place) ?? null;
  }

  /** Writes the number of tokens, their mean surprise and why the text ended, and lists what was copied. */
  drawFacts() {
    if (this.isWriting) return;
    const count = this.tokens.length;
    const bits = this.tokens.reduce((sum, token) => sum + token.bits, 0) / Math.max(1, count);
    const isFiltered = this.reason === "stuck" && this.request.novelty;
    const reason = isFiltered ? "nothing left but copies" : REASONS[this.reason];
    const facts = [countText(count), `${bitsText(bits)} a token`, `seed ${this.request.seed}`, reason];
    this.facts.textContent = facts.filter(Boolean).join(" · ");
    const items = this.copied.map((span) =>
      create("li", {}, create("q", { text: this.text.slice(span.start, span.end) }), sourceText(span)),
    );
    const title = `${items.length} copied ${items.length === 1 ? "passage" : "passages"}`;
    this.notes.replaceChildren(
      ...(items.length ? [create("details", {}, create("summary", { text: title }), create("ul", {}, ...items))] : []),
    );
  }

  /** Makes a token the one that Tab reaches and Enter opens. */
  setCurrent(index, isFocused = false) {
    const before = this.spans[this.current];
    if (before) before.tabIndex = -1;
    for (const name of ["role", "aria-label", "aria-haspopup"]) before?.removeAttribute(name);
    this.current = index;
    const span = this.spans[index];
    span.tabIndex = 0;
    const token = this.tokens[index];
    span.setAttribute("role", "button");
    span.setAttribute("aria-haspopup", "dialog");
    span.setAttribute(
      "aria-label",
      `${spoken(token.text)}, ${bitsText(token.bits)}, token ${index + 1} of ${this.tokens.length}`,
    );
    if (isFocused) span.focus();
  }

  onClick(event) {
    const index = this.spans.indexOf(event.target.closest(".token"));
    if (index >= 0 && getSelection().isCollapsed) this.open(index);
  }

  onKey(event) {
    if (!this.spans.length) return;
    const last = this.spans.length - 1;
    const places = {
      ArrowRight: () => Math.min(last, this.current + 1),
      ArrowLeft: () => Math.max(0, this.current - 1),
      ArrowDown: () => this.across(1),
      ArrowUp: () => this.across(-1),
      Home: () => 0,
      End: () => last,
    };
    if (event.key === "Enter" || event.key === " ") this.open(this.current);
    else if (event.key in places) this.setCurrent(places[event.key](), true);
    else return;
    event.preventDefault();
  }

  /** Returns the token on the line below (1) or above (-1) the current one that is nearest to it. */
  across(direction) {
    const box = (index) => firstBox(this.spans[index]);
    const from = box(this.current);
    let best = this.current;
    for (let index = this.current + direction, line = null; this.spans[index]; index += direction) {
      const to = box(index);
      if (Math.abs(to.top - from.top) < from.height / 2) continue;
      line ??= to.top;
      if (Math.abs(to.top - line) >= from.height / 2) break;
      if (best === this.current || Math.abs(to.left - from.left) < Math.abs(box(best).left - from.left)) best = index;
    }
    return best;
  }

  /** Opens the microscope on a token. */
  open(index) {
    this.setCurrent(index, true);
    openMicroscope(this.spans[index], this.tokens[index], {
      copied: this.copiedAt(index),
      canPick: !this.isWriting,
      onPick: (alternative) => this.pick(index, alternative),
      onMove: (step) => this.spans[index + step] && this.open(index + step),
    });
  }

  /** Cuts the text at a token and puts another in its place; the engine continues it, unless that is the end. */
  pick(index, { text, probability, isEnd }) {
    const { alternatives } = this.tokens[index];
    this.tokens = this.tokens.slice(0, index);
    this.copied = [];
    this.isEnded = isEnd;
    if (isEnd) return this.finish("end");
    this.tokens.push({ text, bits: -Math.log2(probability), alternatives, picked: true });
    this.request = { ...this.request, prompt: this.text, n: 1 };
    this.isWriting = true;
    this.waiting = 0;
    this.first = this.tokens.length;
    this.facts.textContent = "";
    this.notes.replaceChildren();
    this.current = index;
    this.draw();
    return this.actions.onContinue(this);
  }
}

/** Returns the length and the source of a copied span. */
function sourceText(span) {
  return ` ${span.length} characters${span.source ? `, from ${span.source}` : ""}`;
}
