/**
 * The controls of the settings. What a user has not changed follows the chosen model: its own temperature, length and so on.
 *
 * A condition has a menu if it is a category, a slider if it is a number; each can be left open.
 */
import { byId, create } from "./elements.js";
import { LIMITS, toNumber } from "./links.js";

const SLIDERS = ["temperature", "top_p", "min_p"];
const NUMBERS = [...SLIDERS, "max_tokens", "n", "seed"];
const ANY = "any"; // value of a condition

/**
 * Connects the controls, and returns `{read, write, chosen, drawSeed}`; `chosen` returns one model, or two side by side.
 * @param {Array} models  What the engine offers.
 */
export function createSettings(models) {
  const changed = new Set(); // ids of the controls that the user or a link has set
  const exact = {}; // what a slider cannot show, until it is moved: several temperatures in turn, a number between two steps

  function chosen() {
    return [byId("model").value, byId("second").value].flatMap((id) => models.filter((model) => model.id === id));
  }

  /** Sets what the user has not changed to the defaults of the model. */
  function follow() {
    fillConditions(chosen());
    byId("copying").hidden = !chosen().some((model) => model.hasIndex);
    const { conditions, ...defaults } = chosen()[0].defaults;
    defaults.max_tokens = defaults.max_new_tokens;
    for (const name of [...SLIDERS, "max_tokens"]) if (!changed.has(name)) setNumber(name, defaults[name] ?? LIMITS[name].start);
    const open = Object.entries(conditions ?? {}).filter(([name]) => !changed.has(`condition-${name}`));
    writeConditions(Object.fromEntries(open));
    summarise();
  }

  /** Sets a control; what a slider cannot show is kept beside it. */
  function setNumber(name, value) {
    const { low, high } = LIMITS[name];
    const [first, ...others] = [value].flat();
    byId(name).value = Math.min(high, Math.max(low, first));
    const isShown = Number(byId(name).value) === first && others.length === 0;
    if (isShown || !SLIDERS.includes(name)) delete exact[name];
    else exact[name] = value;
  }

  /** Leaves nothing as a user or a link has set it; the conditions and the number of texts follow no other default. */
  function forget() {
    changed.clear();
    byId("n").value = LIMITS.n.start;
    writeConditions({}, true);
  }

  /**
   * Returns the settings as the controls show them.
   * @throws {Error} A number is missing or out of range; the message is one sentence.
   */
  function read() {
    const avoids = !byId("copying").hidden && byId("novelty").checked;
    const limit = byId("max_copy").value;
    return {
      ...Object.fromEntries(NUMBERS.map((name) => [name, toNumber(name, byId(name).value)])),
      ...exact,
      ...Object.fromEntries(["model", "second", "prompt"].map((name) => [name, byId(name).value])),
      novelty: avoids ? "filter" : null,
      max_copy: avoids && limit !== "" ? toNumber("max_copy", limit) : null,
      conditions: readConditions(),
    };
  }

  /** Shows the settings of a link and no others; they stay as they are when another model is chosen, and so does the seed. */
  function write(settings) {
    forget();
    for (const name of ["model", "second", "prompt"]) byId(name).value = settings[name];
    byId("novelty").checked = settings.novelty === "filter";
    byId("max_copy").value = settings.max_copy ?? "";
    for (const name of NUMBERS.filter((each) => settings[each] !== undefined)) {
      changed.add(name);
      setNumber(name, settings[name]);
    }
    byId("new-seed").checked = settings.seed === undefined;
    for (const name of Object.keys(settings.conditions)) changed.add(`condition-${name}`);
    follow();
    writeConditions(settings.conditions, true);
    summarise();
  }

  /** Draws a new seed, if each text is to have one. */
  function drawSeed() {
    if (byId("new-seed").checked) byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  }

  /** Shows the numbers of the sliders, and the settings in a line, for when they are folded. */
  function summarise() {
    for (const name of SLIDERS) {
      const value = exact[name] ?? Number(byId(name).value).toFixed(2);
      const isList = Array.isArray(value) && value.length > 1;
      document.querySelector(`output[for="${name}"]`).textContent = isList ? `${value.join(", ")} in turn` : value;
    }
    const temperatures = [exact.temperature ?? byId("temperature").value].flat().join(", ");
    const parts = [`temperature ${temperatures}`, `${byId("max_tokens").value} tokens`];
    if (byId("n").value !== "1") parts.push(`${byId("n").value} texts`);
    parts.push(...Object.entries(readConditions()).map(([name, label]) => `${name} ${label}`));
    byId("summary").textContent = parts.join(" · ");
  }

  for (const menu of ["model", "second"]) {
    byId(menu).append(...models.map(({ id }) => create("option", { value: id, text: id })));
    byId(menu).addEventListener("change", follow);
  }
  byId("second-field").hidden = models.length < 2;
  byId("model-field").hidden = models.length < 2 && document.title === models[0].id; // which the title names
  for (const [name, { low, high, step, start }] of Object.entries(LIMITS)) {
    if (name !== "seed") Object.assign(byId(name), { min: low, max: high, step });
    byId(name).value = start ?? "";
  }
  byId("form").addEventListener("input", ({ target }) => {
    changed.add(target.id);
    delete exact[target.id];
    if (target.id === "seed") byId("new-seed").checked = false;
    summarise();
  });
  byId("reset").addEventListener("click", () => (forget(), follow()));
  follow();
  return { read, write, chosen, drawSeed };
}

/** Makes a control for each condition of some models; values that are chosen already stay where they can. */
function fillConditions(models) {
  const before = readConditions();
  const conditions = models.flatMap((model) => model.conditions);
  const own = conditions.filter(({ name }, place) => conditions.findIndex((each) => each.name === name) === place);
  byId("conditions").replaceChildren(create("legend", { text: "Conditions" }), ...own.map(createCondition));
  byId("conditions").hidden = own.length === 0;
  writeConditions(before);
}

/** Returns the menu or the slider of a condition, in which place 0 is none of its values. */
function createCondition({ name, kind, values }) {
  const labels = [ANY, ...values.map((value) => value.label)];
  const shared = { id: `condition-${name}`, "data-condition": name, "data-labels": JSON.stringify(labels) };
  const label = create("label", { for: shared.id, text: name });
  if (kind !== "number") {
    const options = labels.map((text) => create("option", { text }));
    return create("p", { class: "field" }, label, create("select", shared, ...options));
  }
  const range = { type: "range", min: 0, max: values.length, step: 1, value: 0 };
  const input = create("input", { ...shared, ...range, oninput: () => setPlace(input, input.value) });
  const whole = create("p", { class: "slider" }, label, create("output", { for: shared.id }), input);
  setPlace(input, 0);
  return whole;
}

/** Chooses a value of a condition by its place; a slider says in words where it stands. */
function setPlace(control, place) {
  if (control.tagName === "SELECT") {
    control.selectedIndex = place;
    return;
  }
  control.value = place;
  const text = labelsOf(control)[place];
  control.setAttribute("aria-valuetext", text);
  control.parentElement.querySelector("output").textContent = text;
}

function labelsOf(control) {
  return JSON.parse(control.dataset.labels);
}

function conditionControls() {
  return [...byId("conditions").querySelectorAll("[data-condition]")];
}

/** Returns the chosen values by name, without those that are left open. */
function readConditions() {
  const places = conditionControls().map((control) => [control, Number(control.selectedIndex ?? control.value)]);
  const chosen = places.filter(([, place]) => place > 0);
  return Object.fromEntries(chosen.map(([control, place]) => [control.dataset.condition, labelsOf(control)[place]]));
}

/** Chooses values by name; those of other conditions stay, or with `all` are left open. */
function writeConditions(values, all = false) {
  for (const control of conditionControls()) {
    const name = control.dataset.condition;
    const place = Object.hasOwn(values, name) ? Math.max(0, labelsOf(control).lastIndexOf(String(values[name]))) : 0;
    if (place > 0 || all) setPlace(control, place);
  }
}
