/** The controls of the settings. What a user has not changed follows the chosen model: its own temperature, length and so on. */
import { byId, create } from "./elements.js";
import { LIMITS, LISTS, labelsOf, toList, toNumber } from "./links.js";

const SLIDERS = ["temperature", "top_p", "min_p"];
const MAX_FIELD = 200; // characters
const NEEDS_SPACE = /[\p{Ll}\p{Lu}\p{N}.,;:!?)]$/u; // before a choice
const NUMBERS = [...SLIDERS, "max_tokens", "n", "seed"];

/** Connects the controls, and returns `{read, write, chosen}`; `chosen` returns one model, or two side by side. */
export function createSettings(models) {
  const changed = new Set(); // ids of the controls that the user or a link has set
  let controls = []; // of conditions
  const exact = {}; // what a slider cannot show, until it is moved: several temperatures in turn, a number between two steps

  const chosen = () => ["model", "second"].flatMap((menu) => models.filter(({ id }) => id === byId(menu).value));

  /** Makes a control for each condition of the chosen models; values that are chosen already stay where they can. */
  function fillConditions() {
    const before = readConditions();
    const all = chosen().flatMap((model) => model.conditions);
    controls = all.filter(({ name }, place) => all.findIndex((each) => each.name === name) === place).map(createCondition);
    const [fields, others] = [true, false].map((isText) => controls.filter((each) => isText === Boolean(each.isText)));
    byId("fields").replaceChildren(...fields.map(({ element }) => element));
    byId("conditions").replaceChildren(create("legend", { text: "Conditions" }), ...others.map(({ element }) => element));
    byId("conditions").hidden = others.length === 0;
    writeConditions(before);
  }

  /** Returns the chosen values of conditions by name, without those that are left open. */
  function readConditions() {
    return Object.fromEntries(controls.map(({ name, read }) => [name, read()]).filter(([, value]) => value !== ""));
  }

  /** Chooses values of conditions by name; those of others stay, or with `all` are left open. */
  function writeConditions(values, all = false) {
    for (const { name, choose } of controls) if (all || Object.hasOwn(values, name)) choose(String(values[name] ?? ""));
  }

  /** Sets what the user has not changed to the defaults of the model. */
  function follow() {
    fillConditions();
    byId("copying").hidden = !chosen().some((model) => model.hasIndex);
    const { conditions, likeness = {}, ...own } = chosen()[0].defaults;
    byId("profile-field").hidden = Object.keys(likeness).length === 0;
    const defaults = { ...own, ...(byId("profile").value === "likeness" ? likeness : {}) };
    defaults.max_tokens = defaults.max_new_tokens;
    for (const name of [...SLIDERS, "max_tokens"]) if (!changed.has(name)) setNumber(name, defaults[name] ?? LIMITS[name].start);
    for (const name of Object.keys(LISTS).filter((each) => !changed.has(each))) writeList(name, [defaults[name] ?? []].flat());
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

  const writeList = (name, texts) => (byId(name).value = texts.map((text) => text.trim()).join(LISTS[name].joint));

  /** Returns the texts of a list, or null where the user leaves it to the model; a choice after a word begins with a space. */
  function readList(name) {
    const texts = toList(name, byId(name).value);
    if (texts.length === 0 && !changed.has(name)) return null;
    const needsSpace = name === "choices" && NEEDS_SPACE.test(byId("prompt").value);
    return needsSpace ? texts.map((text) => (/^[\p{L}\p{N}]/u.test(text) ? ` ${text}` : text)) : texts;
  }

  /** Leaves nothing as a user or a link has set it; the conditions and the number of texts follow no other default. */
  function forget() {
    changed.clear();
    byId("profile").value = "";
    byId("n").value = LIMITS.n.start;
    writeConditions({}, true);
  }

  /** Returns the settings as the controls show them, with a new seed if it is asked for; throws an Error if one is wrong. */
  function read() {
    if (byId("new-seed").checked) byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
    const avoids = !byId("copying").hidden && byId("novelty").checked;
    const limit = byId("max_copy").value;
    return {
      ...Object.fromEntries(NUMBERS.map((name) => [name, toNumber(name, byId(name).value)])),
      ...exact,
      ...Object.fromEntries(["model", "second", "prompt"].map((name) => [name, byId(name).value])),
      ...Object.fromEntries(Object.keys(LISTS).map((name) => [name, readList(name)])),
      profile: byId("profile-field").hidden ? "" : byId("profile").value,
      novelty: avoids ? "filter" : null,
      max_copy: avoids && limit !== "" ? toNumber("max_copy", limit) : null,
      conditions: readConditions(),
    };
  }

  /** Shows the settings of a link and no others; they stay as they are when another model is chosen, and so does the seed. */
  function write(settings) {
    forget();
    for (const name of ["model", "second", "prompt", "profile"]) byId(name).value = settings[name];
    byId("novelty").checked = settings.novelty === "filter";
    byId("max_copy").value = settings.max_copy ?? "";
    for (const name of NUMBERS.filter((each) => settings[each] !== undefined)) {
      changed.add(name);
      setNumber(name, settings[name]);
    }
    for (const name of Object.keys(LISTS).filter((each) => settings[each] !== null)) {
      changed.add(name);
      writeList(name, settings[name]);
    }
    byId("new-seed").checked = settings.seed === undefined;
    for (const name of Object.keys(settings.conditions)) changed.add(`condition-${name}`);
    follow();
    writeConditions(settings.conditions, true);
    summarise();
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
    for (const name of Object.keys(LISTS)) {
      const texts = toList(name, byId(name).value);
      if (texts.length > 0) parts.push(`${name} ${texts.join(", ")}`);
    }
    byId("summary").textContent = parts.join(" · ");
  }

  for (const menu of ["model", "second"]) {
    byId(menu).append(...models.map(({ id }) => create("option", { value: id, text: id })));
    byId(menu).addEventListener("change", follow);
  }
  byId("profile").addEventListener("change", () => {
    for (const name of SLIDERS) changed.delete(name);
    follow();
  });
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
  return { read, write, chosen };
}

/** Returns the control of a condition: `{name, element, read, choose}`; "" draws a value, "any" leaves it open. */
function createCondition({ name, kind, values }) {
  const labels = ["draw", ...labelsOf({ values })];
  const placeOf = (value) => Math.max(0, labels.lastIndexOf(value));
  const valueAt = (place) => (place > 0 ? labels[place] : "");
  const id = `condition-${name}`;
  const label = create("label", { for: id, text: name });
  const field = (control) => create("p", { class: "field" }, label, control);
  if (kind === "text") {
    const input = create("input", { id, type: "text", maxlength: MAX_FIELD, placeholder: "any" });
    const choose = (value) => (input.value = value);
    return { name, isText: true, element: field(input), read: () => input.value.trim(), choose };
  }
  if (kind !== "number") {
    const menu = create("select", { id }, ...labels.map((text) => create("option", { text })));
    const choose = (value) => (menu.selectedIndex = placeOf(value));
    return { name, element: field(menu), read: () => valueAt(menu.selectedIndex), choose };
  }
  const output = create("output", { for: id });
  const input = create("input", { id, type: "range", min: 0, max: labels.length - 1, step: 1, oninput: () => show(input.value) });
  function show(place) {
    input.value = place;
    output.textContent = labels[place];
    input.setAttribute("aria-valuetext", labels[place]);
  }
  show(0);
  const element = create("p", { class: "slider" }, label, output, input);
  return { name, element, read: () => valueAt(input.value), choose: (value) => show(placeOf(value)) };
}
