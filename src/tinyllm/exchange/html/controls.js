/** The sliders of the settings: what they show, and the rules that they mean. */

/** @typedef {import("./texts.js").Texts} Texts */
/** @typedef {"temperature" | "topK" | "topP" | "minP" | "maxNewTokens"} Name */
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
  { name: "maxNewTokens", min: 10, max: 500, step: 10, value: 100, format: (value) => String(value) },
];
const LARGEST_SEED = 2 ** 32;

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

/** The settings as the generator takes them; an empty seed gives a new one. @returns {import("./generation.js").Settings} */
export function readSettings() {
  const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (document.getElementById(id));
  const values = /** @type {Record<Name, number>} */ (Object.fromEntries(SLIDERS.map(({ name }) => [name, input(name).valueAsNumber])));
  const typed = input("seed").value.trim();
  const seed = /^\d+$/.test(typed) ? Number(typed) : Math.floor(Math.random() * LARGEST_SEED);
  return { ...values, seed };
}
