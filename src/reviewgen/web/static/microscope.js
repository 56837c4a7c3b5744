/** The microscope: the most probable alternatives of a token, any of which can be picked. */
import { byId, create } from "./dom.js";
import { bitsText, percentText } from "./surprise.js";
import { spoken, visible } from "./tokens.js";

const GAP = 6; // pixels between a token and the panel
const NARROW = "(max-width: 40rem)"; // there the panel is a sheet at the bottom, by the style

/**
 * Opens the microscope beside a token.
 * @param {HTMLElement} anchor  The token.
 * @param {{text: string, bits: number, alternatives: Array}} token
 * @param {{copied: object|null, onPick: function(object), onMove: function(number), canPick: boolean}} options  onMove is called
 *   with -1 or 1 for the token before or after.
 */
export function openMicroscope(anchor, token, { copied, onPick, onMove, canPick }) {
  const panel = byId("microscope");
  const close = () => (anchor.focus({ preventScroll: true }), closeMicroscope());
  const pick = (alternative) => (close(), onPick(alternative));
  panel.replaceChildren(...head(token, copied, close), list(token, pick, canPick), hint(token, canPick));
  panel.onkeydown = (event) => walk(event, panel, anchor, onMove);
  for (const other of document.querySelectorAll(".token.open")) other.classList.remove("open");
  anchor.classList.add("open");
  panel.ontoggle = (event) => event.newState === "closed" && leave(anchor);
  if (!panel.matches(":popover-open")) panel.showPopover();
  place(panel, firstBox(anchor));
  (panel.querySelector(".chosen:enabled") ?? panel.querySelector("button")).focus({ preventScroll: true });
}

/** Gives the focus back to the token, unless the user has gone elsewhere. */
function leave(anchor) {
  anchor.classList.remove("open");
  if (!document.querySelector(":focus") && anchor.isConnected) anchor.focus();
}

/** Returns whether the microscope is open on a token. */
export function isOpenOn(anchor) {
  return anchor.classList.contains("open") && byId("microscope").matches(":popover-open");
}

export function closeMicroscope() {
  if (byId("microscope").matches(":popover-open")) byId("microscope").hidePopover();
}

/** Returns the heading: the token, its surprise, and the copied span that it is part of. */
function head(token, copied, onClose) {
  const title = create(
    "h2",
    { id: "microscope-title" },
    create("code", { text: visible(token.text), "aria-label": spoken(token.text) }),
  );
  const rank = token.alternatives.findIndex((each) => each.text === token.text && !each.isEnd);
  const ranked =
    rank < 0 ? "not among the ten most likely" : rank === 0 ? "the most likely token" : `number ${rank + 1} of the most likely`;
  const picked = token.picked ? "picked by you, " : "";
  const facts = `${bitsText(token.bits)} of surprise, ${percentText(2 ** -token.bits)}: ${picked}${ranked}.`;
  const close = create("button", { class: "close", "aria-label": "Close", text: "✕", onclick: onClose });
  const parts = [create("div", { class: "head" }, title, close), create("p", { class: "note", text: facts })];
  if (copied) parts.push(create("p", { class: "note", text: copiedText(copied) }));
  return parts;
}

/** Returns what is known of a copied span, as a sentence. */
function copiedText(span) {
  const source = span.source ? `, from ${span.source}` : "";
  return `Part of ${span.length} characters that also stand in the training text${source}.`;
}

function list(token, pick, canPick) {
  const largest = Math.max(...token.alternatives.map((each) => each.probability), 1e-9);
  return create(
    "ol",
    { class: "alternatives" },
    ...token.alternatives.map((each) => create("li", {}, row(each, token, largest, pick, canPick))),
  );
}

function row(alternative, token, largest, pick, canPick) {
  const { text, probability, isEnd } = alternative;
  const isChosen = !isEnd && text === token.text;
  const bar = create("span", { class: "bar" });
  bar.style.width = `${(100 * probability) / largest}%`;
  const name = isEnd ? "end of the text" : spoken(text);
  const properties = {
    type: "button",
    class: isChosen ? "alternative chosen" : "alternative",
    "aria-label": `${name}, ${percentText(probability)}${isChosen ? ", in the text" : ""}`,
    disabled: !canPick || (text === "" && !isEnd),
    onclick: () => pick(alternative),
  };
  const shown = isEnd ? "(end)" : text === "" ? "(part of a character)" : visible(text);
  return create(
    "button",
    properties,
    bar,
    create("code", { text: shown }),
    create("span", { class: "share", text: percentText(probability) }),
  );
}

function hint(token, canPick) {
  const none = token.alternatives.length === 0;
  const text = none
    ? "The engine has no alternatives for it."
    : canPick
      ? "Pick one, and the text goes on from there."
      : "Once the text is written, you can pick one.";
  return create("p", { class: "note", text });
}

/** Moves among alternatives with up and down, among tokens with left and right; Escape and a Tab out lead back to the token. */
function walk(event, panel, anchor, onMove) {
  if (event.key === "Escape") return anchor.focus({ preventScroll: true }); // the browser closes the panel
  if (event.key === "Tab") return leaveByTab(event, panel, anchor);
  const buttons = [...panel.querySelectorAll(".alternative:enabled")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && buttons.length) buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
  else if (move) onMove(move);
  else return;
  event.preventDefault();
}

/** Closes the panel on a Tab out of it; the browser goes on from the token. */
function leaveByTab(event, panel, anchor) {
  const buttons = [...panel.querySelectorAll("button:enabled")];
  if (document.activeElement !== buttons.at(event.shiftKey ? 0 : -1)) return;
  anchor.focus({ preventScroll: true });
  closeMicroscope();
}

/** Returns where a token begins, without the space before it, which may be on the line above. */
export function firstBox(element) {
  const ink = element.lastElementChild ?? element;
  return ink.getClientRects()[0] ?? ink.getBoundingClientRect();
}

/** Places the panel below a token, or above it where there is more room; a sheet stays where it is, and the token moves. */
function place(panel, token) {
  panel.style.left = panel.style.top = "";
  if (matchMedia(NARROW).matches) return scrollBy(0, Math.max(0, token.bottom + 4 * GAP - panel.getBoundingClientRect().top));
  const { width, height } = panel.getBoundingClientRect();
  const left = Math.max(8, Math.min(token.left, document.documentElement.clientWidth - width - 8));
  const isBelow = token.bottom + GAP + height <= innerHeight || token.top < height + GAP;
  panel.style.left = `${left + scrollX}px`;
  panel.style.top = `${(isBelow ? token.bottom + GAP : token.top - GAP - height) + scrollY}px`;
  return panel.scrollIntoView({ block: "nearest" });
}
