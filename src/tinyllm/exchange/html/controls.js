/** The sliders of the settings: what they show, and the rules that they mean. */

/** @typedef {import("./texts.js").Texts} Texts */
/** @typedef {"temperature" | "topK" | "topP" | "minP" | "repetitionPenalty" | "maxNewTokens"} Name */
/**
 * @typedef {{name: Name, min: number, max: number, step: number, value: number,
 *   format: (value: number, texts: Texts) => string}} Slider
 */

/** Sliders in order; `format` writes a value for people. The defaults are those of `tinyllm generate`. @type {Slider[]} */
const SLIDERS = [
  { name: "temperature", min: 0, max: 2, step: 0.05, value: 1, format: (value) => value.toFixed(2) },
  { name: "topK", min: 0, max: 100, step: 1, value: 0, format: (value, texts) => (value ? String(value) : texts.all) },
  { name: "topP", min: 0.05, max: 1, step: 0.01, value: 1, format: (value, texts) => (value < 1 ? value.toFixed(2) : texts.off) },
  { name: "minP", min: 0, max: 0.5, step: 0.01, value: 0, format: (value, texts) => (value ? value.toFixed(2) : texts.off) },
  { name: "repetitionPenalty", min: 1, max: 2, step: 0.05, value: 1, format: (value, texts) => (value > 1 ? value.toFixed(2) : texts.off) },
  { name: "maxNewTokens", min: 10, max: 500, step: 10, value: 100, format: (value) => String(value) },
];
/** Seeds that the page draws are below this, so that they are short enough to type. */
const DRAWN_SEEDS = 2 ** 32;
const LARGEST_SEED = 999_999_999_999_999;

/**
 * Builds the sliders inside `container`; returns a function that shows them in the words of `texts`.
 * @param {HTMLElement} container @returns {(texts: Texts) => void}
 */
export function buildSliders(container) {
  const refreshers = SLIDERS.map((slider) => buildSlider(container, slider));
  return (texts) => refreshers.forEach((refresh) => refresh(texts));
}

/** @param {HTMLElement} container @param {Slider} slider @returns {(texts: Texts) => void} */
function buildSlider(container, { name, format, ...numbers }) {
  const label = Object.assign(document.createElement("label"), { htmlFor: name });
  const output = document.createElement("output");
  const input = Object.assign(document.createElement("input"), { id: name, type: "range" });
  for (const [key, value] of Object.entries(numbers)) input.setAttribute(key, String(value));
  const help = Object.assign(document.createElement("p"), { className: "muted", id: `${name}-help` });
  const row = Object.assign(document.createElement("div"), { className: "row" });
  const box = Object.assign(document.createElement("div"), { className: "slider" });
  output.htmlFor.add(name);
  input.setAttribute("aria-describedby", help.id);
  row.append(label, output);
  box.append(row, input, help);
  container.append(box);
  /** @type {Texts | null} */
  let words = null;
  const show = () => {
    if (words === null) return;
    output.textContent = format(input.valueAsNumber, words);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", show);
  return (texts) => {
    words = texts;
    label.textContent = texts[name];
    help.textContent = texts[/** @type {`${Name}Help`} */ (`${name}Help`)];
    show();
  };
}

/**
 * The settings as the generator takes them; an empty seed gives a new one. Null if the seed is no number: then a line
 * beside the field says so.
 * @returns {import("./generation.js").Settings | null}
 */
export function readSettings() {
  const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (document.getElementById(id));
  const values = /** @type {Record<Name, number>} */ (Object.fromEntries(SLIDERS.map(({ name }) => [name, input(name).valueAsNumber])));
  const typed = input("seed").value.trim();
  const isValid = typed === "" || (/^[0-9]+$/.test(typed) && Number(typed) <= LARGEST_SEED);
  input("seed").setAttribute("aria-invalid", String(!isValid));
  input("seed-problem").hidden = isValid;
  if (!isValid) return null;
  const seed = typed === "" ? Math.floor(Math.random() * DRAWN_SEEDS) : Number(typed);
  return { ...values, seed };
}
