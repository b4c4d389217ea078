/** The sliders of the settings: what they show, and the rules that they mean. */

/** Sliders in order; `format` writes a value for people. */
const SLIDERS = [
  { name: "temperature", min: 0, max: 2, step: 0.05, value: 0.8, format: (value) => value.toFixed(2) },
  { name: "topK", min: 0, max: 100, step: 1, value: 0, format: (value, texts) => (value ? String(value) : texts.all) },
  { name: "topP", min: 0.05, max: 1, step: 0.01, value: 0.95, format: (value, texts) => (value < 1 ? value.toFixed(2) : texts.all) },
  { name: "minP", min: 0, max: 0.5, step: 0.01, value: 0, format: (value, texts) => (value ? value.toFixed(2) : texts.off) },
  { name: "maxNewTokens", min: 10, max: 500, step: 10, value: 200, format: (value) => String(value) },
];
const LARGEST_SEED = 2 ** 32;

/** Builds the sliders inside `container`; returns a function that shows them in the words of `texts`. */
export function buildSliders(container) {
  const refreshers = SLIDERS.map((slider) => buildSlider(container, slider));
  return (texts) => refreshers.forEach((refresh) => refresh(texts));
}

function buildSlider(container, { name, format, ...range }) {
  const label = Object.assign(document.createElement("label"), { htmlFor: name });
  const output = document.createElement("output");
  const input = Object.assign(document.createElement("input"), { id: name, type: "range", ...range });
  const help = Object.assign(document.createElement("p"), { className: "muted", id: `${name}-help` });
  const row = Object.assign(document.createElement("div"), { className: "row" });
  const box = Object.assign(document.createElement("div"), { className: "slider" });
  output.htmlFor.add(name);
  input.value = String(range.value); // after the range, which would clip it
  input.setAttribute("aria-describedby", help.id);
  row.append(label, output);
  box.append(row, input, help);
  container.append(box);
  let words;
  const show = () => {
    output.textContent = format(input.valueAsNumber, words);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", show);
  return (texts) => {
    words = texts;
    label.textContent = texts[name];
    help.textContent = texts[`${name}Help`];
    show();
  };
}

/** The settings as the generator takes them; an empty seed gives a new one. */
export function readSettings() {
  const values = SLIDERS.map(({ name }) => [name, /** @type {HTMLInputElement} */ (document.getElementById(name)).valueAsNumber]);
  const typed = /** @type {HTMLInputElement} */ (document.getElementById("seed")).value.trim();
  const seed = /^\d+$/.test(typed) ? Number(typed) : Math.floor(Math.random() * LARGEST_SEED);
  return { ...Object.fromEntries(values), seed };
}
