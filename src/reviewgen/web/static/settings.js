/**
 * The controls of the settings. What a user has not changed follows the chosen model: its own temperature, length and so on.
 */
import { fillConditions, readConditions, writeConditions } from "./conditions.js";
import { byId, create } from "./dom.js";
import { LIMITS, toNumber } from "./limits.js";

const SLIDERS = ["temperature", "top_p", "min_p"];
const FIELDS = ["max_tokens", "n", "seed", "max_copy"];

/**
 * Connects the controls, and returns `{read, write, chosen, drawSeed}`; `chosen` returns one model, or two side by side.
 * @param {Array} models  What the engine offers.
 */
export function createSettings(models) {
  const changed = new Set();
  const exact = {}; // what a slider cannot show, until it is moved: several temperatures in turn, a number between two steps
  const chosen = () =>
    [byId("model").value, byId("second").value].map((id) => models.find((model) => model.id === id)).filter(Boolean);
  const follow = () => {
    fillConditions(chosen());
    byId("copying").hidden = !chosen().some((model) => model.hasIndex);
    followDefaults(chosen()[0], changed, exact);
    summarise(exact);
  };
  fillMenus(models);
  setLimits();
  byId("form").addEventListener("input", (event) => {
    changed.add(event.target.id);
    delete exact[event.target.id];
    if (event.target.id === "seed") byId("new-seed").checked = false;
    summarise(exact);
  });
  for (const id of ["model", "second"]) byId(id).addEventListener("change", follow);
  byId("reset").addEventListener("click", () => (forget(changed), follow()));
  follow();
  return {
    read: () => ({ ...readControls(), ...exact, conditions: readConditions() }),
    write: (settings) => writeControls(settings, changed, exact, follow),
    chosen,
    drawSeed,
  };
}

/** Fills the menus of models; one model that the title names needs none. */
function fillMenus(models) {
  for (const { id } of models) {
    byId("model").append(create("option", { value: id, text: id }));
    byId("second").append(create("option", { value: id, text: id }));
  }
  byId("second-field").hidden = models.length < 2;
  byId("model-field").hidden = models.length < 2 && document.title === models[0].id;
}

function setLimits() {
  for (const name of [...SLIDERS, ...FIELDS]) {
    const { low, high, step, start } = LIMITS[name];
    if (name !== "seed") Object.assign(byId(name), { min: low, max: high, step });
    byId(name).value = start ?? "";
  }
}

/** Sets what the user has not changed to the defaults of a model. */
function followDefaults(model, changed, exact) {
  const defaults = { ...model.defaults, max_tokens: model.defaults.max_new_tokens };
  for (const name of [...SLIDERS, "max_tokens"].filter((each) => !changed.has(each))) {
    const value = defaults[name] ?? LIMITS[name].start;
    setNumber(name, value, exact);
  }
  const conditions = Object.entries(defaults.conditions ?? {}).filter(([name]) => !changed.has(`condition-${name}`));
  writeConditions(Object.fromEntries(conditions));
}

/** Leaves nothing as a user or a link has set it; the conditions and the number of texts follow no other default. */
function forget(changed) {
  changed.clear();
  byId("n").value = LIMITS.n.start;
  writeConditions({}, true);
}

/** Sets a control; what a slider cannot show is kept beside it. */
function setNumber(name, value, exact) {
  const { low, high } = LIMITS[name];
  const first = Array.isArray(value) ? value[0] : value;
  byId(name).value = Math.min(high, Math.max(low, first));
  const isShown = Number(byId(name).value) === first && [value].flat().length === 1;
  if (isShown || !SLIDERS.includes(name)) delete exact[name];
  else exact[name] = value;
}

/**
 * Returns the settings as the controls show them.
 * @throws {Error} A number is missing or out of range; the message is one sentence.
 */
function readControls() {
  const numbers = [...SLIDERS, ...FIELDS.filter((name) => name !== "max_copy")];
  const settings = Object.fromEntries(numbers.map((name) => [name, toNumber(name, byId(name).value)]));
  const avoids = !byId("copying").hidden && byId("novelty").checked;
  const limit = byId("max_copy").value;
  return {
    ...settings,
    model: byId("model").value,
    second: byId("second").value,
    prompt: byId("prompt").value,
    novelty: avoids ? "filter" : null,
    max_copy: avoids && limit !== "" ? toNumber("max_copy", limit) : null,
  };
}

/** Shows the settings of a link and no others; they stay as they are when another model is chosen, and so does the seed. */
function writeControls(settings, changed, exact, follow) {
  forget(changed);
  byId("model").value = settings.model;
  byId("second").value = settings.second;
  byId("prompt").value = settings.prompt;
  byId("novelty").checked = settings.novelty === "filter";
  byId("max_copy").value = settings.max_copy ?? "";
  for (const name of [...SLIDERS, "max_tokens", "n", "seed"].filter((each) => settings[each] !== undefined)) {
    changed.add(name);
    setNumber(name, settings[name], exact);
  }
  byId("new-seed").checked = settings.seed === undefined;
  for (const name of Object.keys(settings.conditions)) changed.add(`condition-${name}`);
  follow();
  writeConditions(settings.conditions, true);
  summarise(exact);
}

/** Draws a new seed, if each text is to have one. */
function drawSeed() {
  if (byId("new-seed").checked) byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

function drawOutputs(exact) {
  for (const name of SLIDERS) {
    const value = exact[name] ?? Number(byId(name).value).toFixed(2);
    const text = Array.isArray(value) && value.length > 1 ? `${value.join(", ")} in turn` : String(value);
    document.querySelector(`output[for="${name}"]`).textContent = text;
  }
}

/** Shows the settings in a line, for when they are folded. */
function summarise(exact) {
  drawOutputs(exact);
  const parts = [
    `temperature ${[exact.temperature ?? byId("temperature").value].flat().join(", ")}`,
    `${byId("max_tokens").value} tokens`,
  ];
  if (byId("n").value !== "1") parts.push(`${byId("n").value} texts`);
  parts.push(...Object.entries(readConditions()).map(([name, label]) => `${name} ${label}`));
  byId("summary").textContent = parts.join(" · ");
}
