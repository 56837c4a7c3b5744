/**
 * One text as it is written: each token over its surprise, copied spans underlined. A click on a token, or the arrow keys and
 * Enter, open the microscope. A screen reader reads sentences: only the token that the arrow keys have reached is a button.
 */
import { bitsText, byId, copyText, countText, create, percentText, shadeOf, showError, spoken, visible } from "./elements.js";
import { closeMicroscope, firstBox, isOpenOn, openMicroscope } from "./microscope.js";

const REASONS = { length: "reached the length", stopped: "stopped", time: "out of time", stuck: "no token was left" };

/** The text of a number in its column; one that is continued has a request of its own. */
export class Writing {
  constructor(number, request, { onContinue, onShare }) {
    Object.assign(this, { request, onContinue, onShare, prompt: request.prompt, tokens: [], copied: [], spans: [] });
    Object.assign(this, { waiting: 0, first: 0, isWriting: true, isEnded: false }); // ended: by the user
    this.element = byId("text").content.firstElementChild.cloneNode(true);
    [this.body, this.heads, this.facts, this.notes] = this.element.querySelectorAll(".written, .heads, .facts, .notes");
    const [copy, share] = this.element.querySelectorAll("button");
    this.element.querySelector("h3").textContent = `Text ${number + 1}`;
    copy.onclick = async () => {
      copy.textContent = (await copyText(this.textBefore())) ? "Copied" : "Not allowed";
      setTimeout(() => (copy.textContent = "Copy"), 2000);
    };
    share.onclick = () => {
      if (!this.isEnded) this.onShare(this.request, share);
      else showError(new Error("There is no link to a text that you have ended: a link would write on. Copy it instead."));
    };
    this.body.onclick = (event) => this.onClick(event);
    this.body.onkeydown = (event) => this.onKey(event);
    const show = ({ target }) => this.showReads(this.spans.indexOf(target.closest(".token")));
    for (const event of ["pointerover", "focusin"]) this.body.addEventListener(event, show);
    this.draw();
  }

  /** Returns the text before a token, or all of it so far. */
  textBefore(index = this.tokens.length) {
    return this.prompt + this.tokens.slice(0, index).map((token) => token.text).join("");
  }

  take(events) {
    const count = this.tokens.length;
    for (const event of events) {
      if (event.type === "token") this.add(event);
      if (event.type === "back") this.takeBack(event.text);
    }
    const end = events.find(({ type }) => type === "end");
    if (events.some(({ type }) => type === "back")) this.draw();
    else for (let index = count; index < this.tokens.length && !end; index++) this.body.append(this.span(index));
    if (end) this.finish(end.reason, end.text, end.copied);
    else if (count === 0 && this.spans.length) this.setCurrent(0);
  }

  /** Adds a token. The bits of a part of a character (text "") wait for the character, those of the prompt are dropped. */
  add(token) {
    const isFirst = this.tokens.length === this.first;
    const bits = this.waiting + token.bits;
    const alternatives = isFirst ? afterPrompt(token, this.request.prompt) : token.alternatives;
    if (token.text !== "") this.tokens.push({ ...token, alternatives, bits, request: this.request });
    this.waiting = token.text !== "" || isFirst ? 0 : bits;
  }

  /** Keeps the tokens of a beginning of the text. */
  takeBack(text) {
    Object.assign(this, { tokens: fitTokens(text, this.prompt, this.tokens), waiting: 0 });
  }

  /** Ends the text: what the engine cut off goes, copied spans are marked, and an open microscope lets alternatives be picked. */
  finish(reason, text = this.textBefore(), copied = []) {
    const open = this.spans.findIndex(isOpenOn);
    Object.assign(this, { isWriting: false, tokens: fitTokens(text, this.prompt, this.tokens), copied, reason });
    this.draw();
    if (this.spans[open]) this.open(open);
    if (open < this.spans.length) return;
    closeMicroscope(); // its token is gone
    this.focus();
  }

  focus() {
    (this.spans[this.current] ?? this.body).focus({ preventScroll: true }); // a text without tokens keeps it
  }

  /** Draws all anew; the focus stays in the text. */
  draw() {
    const hasFocus = this.body.contains(document.activeElement);
    this.spans = [];
    this.body.classList.toggle("writing", this.isWriting);
    this.body.replaceChildren(create("span", { class: "prompt-text", text: this.prompt }));
    let place = this.prompt.length;
    this.tokens.forEach((token, index) => {
      this.body.append(this.span(index, place));
      place += token.text.length;
    });
    if (this.tokens.length) this.setCurrent(Math.min(this.current ?? 0, this.tokens.length - 1));
    if (hasFocus) this.focus();
    if (this.isWriting) return;
    this.drawFacts();
    this.showReads(this.current);
  }

  /** Returns the element of a token. */
  span(index, place = 0) {
    const { text, bits, picked } = this.tokens[index];
    const lead = text.trim() ? text.match(/^\s*/)[0] : ""; // not shaded, so that no shade stands at the end of a line
    const ink = create("span", { class: `s${shadeOf(bits)}` }, ...this.pieces(place + lead.length, text.slice(lead.length)));
    const span = create("span", { class: picked ? "token picked" : "token", tabindex: -1 }, ...this.pieces(place, lead), ink);
    this.spans[index] = span;
    return span;
  }

  /** Returns a part of the text, with what is copied in it underlined. */
  pieces(place, text) {
    const end = place + text.length;
    const edges = this.copied.flatMap((span) => [span.start, span.end]).filter((edge) => edge > place && edge < end);
    const cuts = [...new Set([place, ...edges, end])].sort((one, other) => one - other);
    return cuts.slice(0, -1).map((from, index) => {
      const piece = text.slice(from - place, cuts[index + 1] - place);
      return this.copied.some((span) => span.start <= from && span.end > from) ? create("mark", { text: piece }) : piece;
    });
  }

  /** Shows what each head read when a token was predicted: as a list below the text, and by bars below the tokens. */
  showReads(index) {
    const { text, reads, request } = this.tokens[index] ?? {};
    if (!reads) return;
    const weights = new Map(); // by place, the largest of all heads
    for (const { place, weight } of reads.flatMap(({ tokens }) => tokens)) weights.set(place, Math.max(weight, weights.get(place) ?? 0));
    this.tokens.forEach((token, other) => {
      const weight = token.request === request ? weights.get(token.place) : 0; // a later request has other places
      this.spans[other]?.style.setProperty("--read", `${Math.round(100 * (weight ?? 0))}%`);
    });
    const rows = reads.map(({ name, tokens }) => {
      const items = tokens.map((token) => {
        const item = create("span", { class: "share" }, create("code", { text: visible(token.text) }), ` ${percentText(token.weight)}`);
        item.style.setProperty("--read", `${Math.round(50 * token.weight)}%`);
        return item;
      });
      return create("li", {}, create("span", { text: name }), ...items);
    });
    const title = create("p", {}, "What each head read to predict ", create("code", { text: visible(text) }));
    this.heads.replaceChildren(title, create("ul", {}, ...rows));
  }

  /** Writes the number of tokens, their mean surprise and why the text ended, and lists what was copied. */
  drawFacts() {
    const count = this.tokens.length;
    const bits = this.tokens.reduce((sum, token) => sum + token.bits, 0) / Math.max(1, count);
    const isFiltered = this.reason === "stuck" && this.request.novelty;
    const reason = isFiltered ? "nothing left but copies" : REASONS[this.reason];
    const facts = [countText(count, "token"), `${bitsText(bits)} a token`, `seed ${this.request.seed}`, reason];
    this.facts.textContent = facts.filter(Boolean).join(" · ");
    const text = this.textBefore();
    const items = this.copied.map(({ start, end, length, source }) => {
      const facts = ` ${length} characters${source ? `, from ${source}` : ""}`;
      return create("li", {}, create("q", { text: text.slice(start, end) }), facts);
    });
    const title = create("summary", { text: countText(items.length, "copied passage") });
    this.notes.replaceChildren(...(items.length ? [create("details", {}, title, create("ul", {}, ...items))] : []));
  }

  /** Makes a token the one that Tab reaches and Enter opens. */
  setCurrent(index, isFocused = false) {
    const before = this.spans[this.current];
    if (before) before.tabIndex = -1;
    for (const name of ["role", "aria-label", "aria-haspopup"]) before?.removeAttribute(name);
    this.current = index;
    const [span, { text, bits }] = [this.spans[index], this.tokens[index]];
    span.tabIndex = 0;
    span.setAttribute("role", "button");
    span.setAttribute("aria-haspopup", "dialog");
    span.setAttribute("aria-label", `${spoken(text)}, ${bitsText(bits)}, token ${index + 1} of ${this.tokens.length}`);
    if (isFocused) span.focus();
  }

  onClick(event) {
    const index = this.spans.indexOf(event.target.closest(".token"));
    if (index >= 0 && getSelection().isCollapsed) this.open(index);
  }

  onKey(event) {
    if (!this.spans.length) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    const lines = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this.open(this.current);
    else if (step) this.setCurrent(Math.max(0, Math.min(this.current + step, this.spans.length - 1)), true);
    else if (lines) this.setCurrent(this.across(lines), true);
    else return;
    event.preventDefault();
  }

  /** Returns the token on the line below (1) or above (-1) the current one that is nearest to it. */
  across(direction) {
    const from = firstBox(this.spans[this.current]);
    let [best, nearest, line] = [this.current, Infinity, null];
    for (let index = this.current + direction; this.spans[index]; index += direction) {
      const to = firstBox(this.spans[index]);
      if (Math.abs(to.top - from.top) < from.height / 2) continue;
      line ??= to.top;
      if (Math.abs(to.top - line) >= from.height / 2) break;
      const distance = Math.abs(to.left - from.left);
      if (distance < nearest) [best, nearest] = [index, distance];
    }
    return best;
  }

  open(index) {
    this.setCurrent(index, true);
    const [start, end] = [this.textBefore(index).length, this.textBefore(index + 1).length];
    openMicroscope(this.spans[index], this.tokens[index], {
      copied: this.copied.find((span) => span.start < end && span.end > start),
      canPick: !this.isWriting,
      onPick: (alternative) => this.pick(index, alternative),
      onMove: (step) => this.spans[index + step] && this.open(index + step),
    });
  }

  /** Cuts the text at a token and puts another in its place; the engine continues it, unless that is the end. */
  pick(index, { text, probability, isEnd }) {
    const { alternatives } = this.tokens[index];
    const before = this.textBefore(index) + text;
    const choices = this.request.choices?.filter((choice) => (this.prompt + choice).startsWith(before)) ?? [];
    if (!isEnd && choices.length > 0) return this.choose(choices);
    this.tokens = this.tokens.slice(0, index);
    Object.assign(this, { copied: [], isEnded: isEnd, waiting: 0, current: index });
    if (isEnd) return this.finish("end");
    this.tokens.push({ text, bits: -Math.log2(probability), alternatives, picked: true });
    Object.assign(this, { isWriting: true, first: this.tokens.length });
    return this.continue({ prompt: this.textBefore(), n: 1, choices: this.request.choices && [] });
  }

  /** Writes one of some choices anew: those that begin as the user has picked. */
  choose(choices) {
    Object.assign(this, { copied: [], waiting: 0, tokens: [], first: 0, isWriting: true });
    return this.continue({ choices, n: 1 });
  }

  /** Continues the text with other settings. */
  continue(settings) {
    this.request = { ...this.request, ...settings };
    this.facts.textContent = "";
    this.notes.replaceChildren();
    this.draw();
    return this.onContinue(this);
  }
}

/** Returns the tokens of a final text, whose end the engine may have cut off: whole ones, then what remains of the last. */
function fitTokens(text, prompt, tokens) {
  let [count, place] = [0, Math.min(prompt.length, text.length)];
  while (count < tokens.length && text.startsWith(tokens[count].text, place)) place += tokens[count++].text.length;
  const [fitted, next, rest] = [tokens.slice(0, count), tokens[count], text.slice(place)];
  if (rest === "") return fitted;
  return [...fitted, next?.text.startsWith(rest) ? { ...next, text: rest } : { text: rest, bits: 0, alternatives: [] }];
}

/** Returns the alternatives of a token that repeats the end of the prompt as what they add to it; others would change it. */
function afterPrompt({ text, alternatives }, prompt) {
  const longer = alternatives.filter((each) => each.text.length > text.length && each.text.endsWith(text));
  const repeated = longer.map((each) => each.text.slice(0, -text.length)).find((beginning) => prompt.endsWith(beginning));
  if (repeated === undefined) return alternatives;
  const fitting = alternatives.filter((each) => each.text.startsWith(repeated) && each.text !== repeated);
  return fitting.map((each) => ({ ...each, text: each.text.slice(repeated.length) }));
}
