/**
 * The controls of the settings. What a user has not changed follows the chosen model: its own temperature, length and so on.
 */
import { fillConditions, readConditions, writeConditions } from "./conditions.js";
import { byId, create } from "./dom.js";
import { LIMITS, toNumber } from "./limits.js";

const SLIDERS = ["temperature", "top_p", "min_p"];
const FIELDS = ["max_tokens", "n", "seed", "max_copy"];

/**
 * Connects the controls, and returns `{read, write, drawSeed}`.
 * @param {Array} models  What the engine offers.
 */
export function createSettings(models) {
  const changed = new Set();
  const cycle = {}; // a model may have several temperatures in turn; the slider shows the first until it is moved
  const chosen = () =>
    [byId("model").value, byId("second").value].map((id) => models.find((model) => model.id === id)).filter(Boolean);
  const follow = () => {
    fillConditions(chosen());
    byId("copying").hidden = !chosen().some((model) => model.hasIndex);
    followDefaults(chosen()[0], changed, cycle);
    summarise(cycle);
  };
  fillMenus(models);
  setLimits();
  byId("form").addEventListener("input", (event) => {
    changed.add(event.target.id);
    if (event.target.id === "temperature") delete cycle.temperature;
    if (event.target.id === "seed") byId("new-seed").checked = false;
    summarise(cycle);
  });
  for (const id of ["model", "second"]) byId(id).addEventListener("change", follow);
  byId("reset").addEventListener("click", () => (changed.clear(), follow()));
  follow();
  return {
    read: () => ({ ...readControls(), ...cycle, conditions: readConditions() }),
    write: (settings) => writeControls(settings, changed, cycle, follow),
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
function followDefaults(model, changed, cycle) {
  const defaults = { ...model.defaults, max_tokens: model.defaults.max_new_tokens };
  for (const name of [...SLIDERS, "max_tokens"].filter((each) => !changed.has(each))) {
    const value = defaults[name] ?? LIMITS[name].start;
    setNumber(name, value, cycle);
  }
  const conditions = Object.entries(defaults.conditions ?? {}).filter(([name]) => !changed.has(`condition-${name}`));
  writeConditions(Object.fromEntries(conditions));
}

/** Sets a control; several temperatures in turn are kept beside it. */
function setNumber(name, value, cycle) {
  const { low, high } = LIMITS[name];
  const first = Array.isArray(value) ? value[0] : value;
  byId(name).value = Math.min(high, Math.max(low, first));
  if (Array.isArray(value) && value.length > 1) cycle[name] = value;
  else delete cycle[name];
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

/** Shows the settings of a link; they stay as they are when another model is chosen, and so does the seed. */
function writeControls(settings, changed, cycle, follow) {
  byId("model").value = settings.model;
  byId("second").value = settings.second;
  byId("prompt").value = settings.prompt;
  byId("novelty").checked = settings.novelty === "filter";
  byId("max_copy").value = settings.max_copy ?? "";
  for (const name of [...SLIDERS, "max_tokens", "n", "seed"].filter((each) => settings[each] !== undefined)) {
    changed.add(name);
    setNumber(name, settings[name], cycle);
  }
  if (settings.seed !== undefined) byId("new-seed").checked = false;
  for (const name of Object.keys(settings.conditions)) changed.add(`condition-${name}`);
  follow();
  if (Array.isArray(settings.temperature)) cycle.temperature = settings.temperature;
  writeConditions(settings.conditions, true);
  summarise(cycle);
}

/** Draws a new seed, if each text is to have one. */
function drawSeed() {
  if (byId("new-seed").checked) byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

function drawOutputs(cycle) {
  for (const name of SLIDERS) {
    const text = cycle[name] ? `${cycle[name].join(", ")} in turn` : Number(byId(name).value).toFixed(2);
    document.querySelector(`output[for="${name}"]`).textContent = text;
  }
}

/** Shows the settings in a line, for when they are folded. */
function summarise(cycle) {
  drawOutputs(cycle);
  const parts = [
    `temperature ${cycle.temperature?.join(", ") ?? byId("temperature").value}`,
    `${byId("max_tokens").value} tokens`,
  ];
  if (byId("n").value !== "1") parts.push(`${byId("n").value} texts`);
  parts.push(...Object.entries(readConditions()).map(([name, label]) => `${name} ${label}`));
  byId("summary").textContent = parts.join(" · ");
}
