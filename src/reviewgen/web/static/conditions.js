/** The controls of conditions: a menu for categories, a slider for numbers; each can be left open. */
import { byId, create } from "./dom.js";

const ANY = "any";

/** Makes a control for each condition of some models; values that are chosen already stay where they can. */
export function fillConditions(models) {
  const before = readConditions();
  const conditions = new Map(
    models
      .flatMap((model) => model.conditions)
      .reverse()
      .map((each) => [each.name, each]),
  );
  const made = [...conditions.values()].reverse().map((each) => (each.kind === "number" ? slider(each) : menu(each)));
  byId("conditions").replaceChildren(create("legend", { text: "Conditions" }), ...made);
  byId("conditions").hidden = conditions.size === 0;
  writeConditions(before);
}

/** Returns the chosen values by name, without those that are left open. */
export function readConditions() {
  const chosen = controls().filter((control) => placeOf(control) > 0);
  return Object.fromEntries(chosen.map((control) => [control.dataset.condition, labelsOf(control)[placeOf(control) - 1]]));
}

/** Chooses values by name; those of other conditions stay, or with `all` are left open. */
export function writeConditions(values, all = false) {
  for (const control of controls()) {
    const name = control.dataset.condition;
    const place = Object.hasOwn(values, name) ? 1 + labelsOf(control).indexOf(String(values[name])) : 0;
    if (place > 0 || all) setPlace(control, place);
  }
}

function controls() {
  return [...byId("conditions").querySelectorAll("[data-condition]")];
}

function labelsOf(control) {
  return JSON.parse(control.dataset.labels);
}

/** Returns which value is chosen, from 1; 0 is none. */
function placeOf(control) {
  return control.tagName === "SELECT" ? control.selectedIndex : Number(control.value);
}

function setPlace(control, place) {
  if (control.tagName === "SELECT") control.selectedIndex = place;
  else control.value = place;
  if (control.tagName === "INPUT") describe(control);
}

/** Says in words where a slider stands. */
function describe(control) {
  const text = labelsOf(control)[placeOf(control) - 1] ?? ANY;
  control.setAttribute("aria-valuetext", text);
  control.parentElement.querySelector("output").textContent = text;
}

/** Returns the properties that both kinds of control share. */
function shared(condition) {
  const labels = condition.values.map((value) => value.label);
  return { id: `condition-${condition.name}`, "data-condition": condition.name, "data-labels": JSON.stringify(labels) };
}

function menu(condition) {
  const options = [ANY, ...condition.values.map((value) => value.label)].map((label) => create("option", { text: label }));
  const select = create("select", shared(condition), ...options);
  return create("p", { class: "field" }, create("label", { for: select.id, text: condition.name }), select);
}

function slider(condition) {
  const range = { type: "range", min: 0, max: condition.values.length, step: 1, value: 0 };
  const input = create("input", { ...shared(condition), ...range, oninput: () => describe(input) });
  const label = create("label", { for: input.id, text: condition.name });
  const whole = create("p", { class: "slider" }, label, create("output", { for: input.id }), input);
  describe(input);
  return whole;
}
