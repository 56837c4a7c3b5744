/** What is known of a model: the facts of its card, and the card. */
import { byId, create } from "./dom.js";

const SYNTHETIC =
  "The texts are synthetic: a language model writes them, and what they say of films, people or places is made up.";

/** Opens the dialog with the facts of some models. */
export function openCard(models) {
  byId("card-title").textContent = models.length > 1 ? "About the models" : "About the model";
  byId("card-content").replaceChildren(create("p", { text: SYNTHETIC }), ...models.map(describe));
  byId("card").showModal();
}

function describe(model) {
  const facts = model.facts.flatMap(([label, value]) => [create("dt", { text: label }), create("dd", { text: String(value) })]);
  const whole = create(
    "details",
    {},
    create("summary", { text: "The whole model card" }),
    create("pre", { class: "card-text", tabindex: 0, text: withoutMetadata(model.card) }),
  );
  return create("section", {}, create("h3", { text: model.id }), create("dl", {}, ...facts), ...(model.card ? [whole] : []));
}

/** Returns a card without the block of metadata that begins it. */
function withoutMetadata(card) {
  return card.replace(/^---\n[\s\S]*?\n---\n+/, "");
}
