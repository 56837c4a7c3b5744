/** Elements of the page. Text is set as text, never as markup. */

/** Returns the element of an id. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Returns a new element.
 * @param {string} tag
 * @param {Object<string, *>} properties  Attributes; `class`, `text` and functions `onclick` and so on as properties.
 * @param {...(Node|string)} children
 */
export function create(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "text") element.textContent = value;
    else if (typeof value === "function") element[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Shows one sentence in the page, or takes it away; a screen reader reads it at once. */
export function showError(sentence) {
  byId("error").textContent = sentence;
}

/** Tells a screen reader, and nobody else, what has happened. */
export function announce(sentence) {
  byId("status").textContent = sentence;
}

/** Returns an error as one plain sentence. */
export function sentenceOf(error) {
  return error instanceof Error && error.message ? error.message : "Something went wrong, and the page does not know what.";
}

/** Puts a text on the clipboard; returns whether the browser allowed it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
