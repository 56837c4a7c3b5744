/** The microscope: the most probable alternatives of a token, any of which can be picked. */
import { bitsText, byId, create, percentText, spoken, visible } from "./elements.js";

const GAP = 6; // pixels between a token and the panel
const NARROW = "(max-width: 40rem)"; // there the panel is a sheet at the bottom, by the style

/**
 * Opens the microscope beside a token.
 * @param {HTMLElement} anchor  The token.
 * @param {{text: string, bits: number, alternatives: Array}} token
 * @param {{copied: object|undefined, onPick: function(object), onMove: function(number), canPick: boolean}} options  onMove is called
 *   with -1 or 1 for the token before or after.
 */
export function openMicroscope(anchor, token, { copied, onPick, onMove, canPick }) {
  const panel = byId("microscope");
  const close = () => (anchor.focus({ preventScroll: true }), closeMicroscope());
  const largest = Math.max(...token.alternatives.map((each) => each.probability), 1e-9);
  const rows = token.alternatives.map((each) => {
    const isChosen = !each.isEnd && each.text === token.text;
    return create("li", {}, createRow(each, isChosen, each.probability / largest, canPick && (() => (close(), onPick(each)))));
  });
  const hint = !rows.length
    ? "The engine has no alternatives for it."
    : canPick
      ? "Pick one, and the text goes on from there."
      : "Once the text is written, you can pick one.";
  const note = (text) => create("p", { class: "note", text });
  panel.replaceChildren(...head(token, close), ...(copied ? [note(copiedText(copied))] : []));
  panel.append(create("ol", { class: "alternatives" }, ...rows), note(hint));
  panel.onkeydown = (event) => onKey(event, panel, anchor, onMove);
  for (const other of document.querySelectorAll(".token.open")) other.classList.remove("open");
  anchor.classList.add("open");
  panel.ontoggle = (event) => event.newState === "closed" && leave(anchor);
  if (!panel.matches(":popover-open")) panel.showPopover();
  place(panel, firstBox(anchor));
  (panel.querySelector(".chosen:enabled") ?? panel.querySelector("button")).focus({ preventScroll: true });
}

/** Returns whether the microscope is open on a token. */
export function isOpenOn(anchor) {
  return anchor.classList.contains("open") && byId("microscope").matches(":popover-open");
}

export function closeMicroscope() {
  if (byId("microscope").matches(":popover-open")) byId("microscope").hidePopover();
}

/** Returns where a token begins, without the space before it, which may be on the line above. */
export function firstBox(element) {
  const ink = element.lastElementChild ?? element;
  return ink.getClientRects()[0] ?? ink.getBoundingClientRect();
}

/** Gives the focus back to the token, unless the user has gone elsewhere. */
function leave(anchor) {
  anchor.classList.remove("open");
  if (!document.querySelector(":focus") && anchor.isConnected) anchor.focus();
}

/** Returns the heading: the token and its surprise. */
function head({ text, bits, alternatives, picked }, onclick) {
  const title = create("code", { text: visible(text), "aria-label": spoken(text) });
  const close = create("button", { class: "close", "aria-label": "Close", text: "✕", onclick });
  const rank = alternatives.findIndex((each) => each.text === text && !each.isEnd);
  const ranked = ["not among the ten most likely", "the most likely token"][rank + 1] ?? `number ${rank + 1} of the most likely`;
  const facts = `${bitsText(bits)} of surprise, ${percentText(2 ** -bits)}: ${picked ? "picked by you, " : ""}${ranked}.`;
  const line = create("div", { class: "head" }, create("h2", { id: "microscope-title" }, title), close);
  return [line, create("p", { class: "note", text: facts })];
}

/** Returns what is known of a copied span, as a sentence. */
function copiedText({ length, source }) {
  return `Part of ${length} characters that also stand in the training text${source ? `, from ${source}` : ""}.`;
}

/** Returns the button of an alternative; without `onclick` it cannot be picked. */
function createRow({ text, probability, isEnd }, isChosen, share, onclick) {
  const bar = create("span", { class: "bar" });
  bar.style.width = `${100 * share}%`;
  const shown = isEnd ? "(end)" : text === "" ? "(part of a character)" : visible(text);
  const properties = {
    type: "button",
    class: isChosen ? "alternative chosen" : "alternative",
    "aria-label": `${isEnd ? "end of the text" : spoken(text)}, ${percentText(probability)}${isChosen ? ", in the text" : ""}`,
    disabled: !onclick || (text === "" && !isEnd),
    onclick,
  };
  const percent = create("span", { class: "share", text: percentText(probability) });
  return create("button", properties, bar, create("code", { text: shown }), percent);
}

/** Moves among alternatives with up and down, among tokens with left and right; Escape and a Tab out lead back to the token. */
function onKey(event, panel, anchor, onMove) {
  const [step, move] = [{ ArrowDown: 1, ArrowUp: -1 }[event.key], { ArrowRight: 1, ArrowLeft: -1 }[event.key]];
  if (event.key === "Escape") return anchor.focus({ preventScroll: true }); // the browser closes the panel
  if (event.key === "Tab") {
    const last = [...panel.querySelectorAll("button:enabled")].at(event.shiftKey ? 0 : -1);
    if (document.activeElement !== last) return undefined;
    anchor.focus({ preventScroll: true }); // the browser goes on from the token
    return closeMicroscope();
  }
  const rows = [...panel.querySelectorAll(".alternative:enabled")];
  if (step && rows.length) rows[(rows.indexOf(document.activeElement) + step + rows.length) % rows.length].focus();
  else if (move) onMove(move);
  else return undefined;
  return event.preventDefault();
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
