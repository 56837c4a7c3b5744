/** The surprise of a token: -log2 of its probability, in bits, as one of eight shades. */
import { create } from "./dom.js";

const EDGES = [1, 2, 3, 5, 7, 9, 12]; // bits; the shades 1 to 7 begin here

/** Returns the shade of a token, 0 to 7. */
export function shadeOf(bits) {
  const shade = EDGES.findIndex((edge) => bits < edge);
  return shade < 0 ? EDGES.length : shade;
}

/** Returns bits as text: "2.3 bits". */
export function bitsText(bits) {
  return Number.isFinite(bits) ? `${bits.toFixed(1)} bits` : "infinitely many bits";
}

/** Returns a probability as text: "20.3 %". */
export function percentText(probability) {
  const percent = 100 * probability;
  return percent >= 0.1 || percent === 0 ? `${percent.toFixed(1)} %` : percent >= 0.001 ? `${percent.toFixed(3)} %` : "< 0.001 %";
}

/** Fills the legend: each shade over the bits that it begins with. */
export function fillLegend(legend) {
  const shades = [0, ...EDGES].map((edge, shade) => create("span", { class: `swatch s${shade}`, text: edge }));
  legend.replaceChildren(create("span", { text: "expected" }), ...shades, create("span", { text: "surprising" }));
}
