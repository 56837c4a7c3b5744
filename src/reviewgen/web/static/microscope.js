/** The microscope: the most probable alternatives of a token, any of which can be picked. */
import { bitsText, byId, create, percentText, spoken, visible } from "./elements.js";

const GAP = 6; // pixels between a token and the panel
const NARROW = "(max-width: 40rem)"; // there the panel is a sheet at the bottom, by the style

/** Opens the microscope beside a token, perhaps of a copied span; onPick gets an alternative, onMove -1 or 1 for a neighbour. */
export function openMicroscope(anchor, token, { copied, onPick, onMove, canPick }) {
  const panel = byId("microscope");
  const close = () => (anchor.focus({ preventScroll: true }), closeMicroscope());
  fill(token, copied, canPick && ((alternative) => (close(), onPick(alternative))));
  panel.querySelector(".close").onclick = close;
  panel.onkeydown = (event) => onKey(event, panel, anchor, onMove);
  panel.ontoggle = (event) => event.newState === "closed" && leave(anchor);
  for (const other of document.querySelectorAll(".token.open")) other.classList.remove("open");
  anchor.classList.add("open");
  panel.togglePopover(true);
  place(panel, firstBox(anchor));
  (panel.querySelector(".chosen:enabled") ?? panel.querySelector("button")).focus({ preventScroll: true });
}

/** Returns whether the microscope is open on a token. */
export const isOpenOn = (anchor) => anchor.classList.contains("open") && byId("microscope").matches(":popover-open");

export const closeMicroscope = () => void byId("microscope").togglePopover(false); // false would cancel an event

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

/** Fills the panel: the token, its surprise, the copied span that it is part of, and its alternatives. */
function fill({ text, bits, alternatives, picked }, copied, pick) {
  byId("microscope-title").replaceChildren(create("code", { text: visible(text), "aria-label": spoken(text) }));
  const rank = alternatives.findIndex((each) => each.text === text && !each.isEnd);
  const ranked = ["not among the ten most likely", "the most likely token"][rank + 1] ?? `number ${rank + 1} of the most likely`;
  const chance = `${bitsText(bits)} of surprise, ${percentText(2 ** -bits)}`;
  byId("token-facts").textContent = `${chance}: ${picked ? "picked by you, " : ""}${ranked}.`;
  const source = copied?.source ? `, from ${copied.source}` : "";
  byId("token-source").hidden = !copied;
  byId("token-source").textContent = `Part of ${copied?.length} characters that also occur in the training text${source}.`;
  const largest = Math.max(...alternatives.map((each) => each.probability), 1e-9);
  const rows = alternatives.map((each, place) => createRow(each, place === rank, each.probability / largest, pick));
  byId("alternatives").replaceChildren(...rows);
  const hint = pick ? "Pick one, and the text goes on from there." : "Once the text is written, you can pick one.";
  byId("pick-hint").textContent = rows.length ? hint : "The engine has no alternatives for it.";
}

/** Returns the row of an alternative; without `pick` it cannot be picked. */
function createRow(alternative, isChosen, share, pick) {
  const { text, isEnd } = alternative;
  const percent = percentText(alternative.probability);
  const bar = create("span", { class: "bar" });
  bar.style.width = `${100 * share}%`;
  const properties = {
    type: "button",
    class: isChosen ? "alternative chosen" : "alternative",
    "aria-label": `${isEnd ? "end of the text" : spoken(text)}, ${percent}${isChosen ? ", in the text" : ""}`,
    disabled: !pick || (text === "" && !isEnd),
    onclick: () => pick(alternative),
  };
  const shown = isEnd ? "(end)" : text === "" ? "(part of a character)" : visible(text);
  const parts = [bar, create("code", { text: shown }), create("span", { class: "share", text: percent })];
  return create("li", {}, create("button", properties, ...parts));
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
