/**
 * The page: a prompt becomes a text, token by token, and every token can be asked for its rivals.
 *
 * Data reaches the document as text alone, never as HTML. The model runs in a worker (see `worker.js`).
 */

import { buildSliders, readSettings } from "./controls.js";
import { RivalCard, percent, readable } from "./rivals.js";
import { TEXTS } from "./texts.js";

const SURPRISING_BITS = 8; // a token of this information, 1 in 256, has the full shade
const element = (id) => document.getElementById(id);

/** The state of the page and its parts. */
class Page {
  constructor(info) {
    this.info = info;
    this.language = navigator.language.startsWith("zh") ? "zh" : "en";
    this.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    this.run = 0;
    this.isOpen = false;
    this.isWriting = false;
    this.promptText = "";
    this.promptIds = [];
    this.tokens = [];
    this.arrived = [];
    this.status = { kind: "loading" };
    this.showSliders = buildSliders(element("sliders"));
    this.card = new RivalCard(element("rivals"), (index, id) => this.branch(index, id));
    element("title").textContent = info.title;
    element("prompt").value = info.prompt;
    element("settings").open = matchMedia("(min-width: 54rem)").matches;
    this.listen();
    this.showTheme();
    this.showTexts();
  }

  get texts() {
    return TEXTS[this.language];
  }

  /** Gives the model to a worker. Called once the whole file is read. */
  open() {
    const files = {};
    for (const script of document.querySelectorAll("script[data-file]")) {
      files[script.dataset.file] = script.textContent;
      script.remove(); // the worker has a copy; this one would only take memory
    }
    const source = new Blob([element("engine").textContent], { type: "text/javascript" });
    try {
      this.worker = new Worker(URL.createObjectURL(source));
    } catch {
      this.setStatus({ kind: "error", message: "noWorker" });
      return;
    }
    this.worker.onerror = () => this.setStatus({ kind: "error", message: "noWorker" });
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.postMessage({ kind: "open", info: this.info, files });
  }

  listen() {
    element("write").addEventListener("click", () => this.write());
    element("stop").addEventListener("click", () => this.stop());
    element("more").addEventListener("click", () => this.start(this.tokens.length, null));
    element("language").addEventListener("click", () => {
      this.language = this.texts.otherLanguage;
      this.showTexts();
    });
    element("theme").addEventListener("click", () => {
      this.theme = this.theme === "dark" ? "light" : "dark";
      this.showTheme();
    });
    element("shading").addEventListener("change", (event) => {
      element("text").classList.toggle("plain", !event.target.checked);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.write();
      if (event.key !== "Escape") return;
      if (element("rivals").hidden) this.stop();
      else this.card.close();
    });
    document.addEventListener("pointerdown", ({ target }) => {
      if (!element("rivals").contains(target) && !target.closest?.(".token")) this.card.close();
    });
    const text = element("text");
    text.addEventListener("click", ({ target }) => this.showRivals(target, true));
    text.addEventListener("pointerover", ({ target, pointerType }) => {
      if (pointerType === "mouse" && !this.card.isPinned) this.card.openSoon(() => this.showRivals(target, false));
    });
    text.addEventListener("pointerout", ({ pointerType }) => pointerType === "mouse" && this.card.closeSoon());
    text.addEventListener("keydown", (event) => this.onTextKey(event));
  }

  /** Begins a new text from the prompt. */
  write() {
    if (!this.isOpen) return;
    this.promptText = element("prompt").value;
    this.promptIds = null;
    this.start(0, null);
  }

  /** Goes on from token `index`, where a rival takes the place of the token that stood there. */
  branch(index, id) {
    this.card.close();
    this.start(index, id);
  }

  /** Asks the worker for the tokens after the first `numKept`. */
  start(numKept, forced) {
    this.run += 1;
    this.tokens.length = numKept;
    this.arrived = [];
    this.settings = readSettings();
    this.card.close();
    this.showText();
    this.setWriting(true);
    this.setStatus({ kind: "reading" });
    const kept = this.tokens.map(({ id }) => id);
    const { run, promptText: text, promptIds: ids, settings } = this;
    this.worker.postMessage({ kind: "generate", run, text, ids, kept, forced, settings });
  }

  stop() {
    if (!this.isWriting) return;
    this.showArrived();
    this.run += 1; // messages of the stopped run are ignored
    this.worker.postMessage({ kind: "stop" });
    this.setWriting(false);
    this.setStatus({ ...this.status, kind: "stopped" });
  }

  receive(data) {
    if (data.kind === "opened") {
      this.isOpen = true;
      this.setWriting(false);
      this.setStatus({ kind: "ready" });
    } else if (data.kind === "error" && (data.run === this.run || data.run === 0)) {
      this.setWriting(false);
      this.setStatus({ kind: "error", message: data.message });
    } else if (data.run === this.run) {
      this.receiveOfRun(data);
    }
  }

  receiveOfRun(data) {
    if (data.kind === "prompt") this.promptIds = data.ids;
    if (data.kind === "token") {
      // Tokens are shown once a frame, however many arrive.
      if (this.arrived.length === 0) requestAnimationFrame(() => this.showArrived());
      this.arrived.push(data);
    }
    if (data.kind === "done") {
      this.showArrived();
      this.setWriting(false);
      this.setStatus({ ...this.status, kind: "done", reason: this.tokens.at(-1)?.reason });
    }
  }

  showArrived() {
    if (this.arrived.length === 0) return;
    const { rate } = this.arrived.at(-1);
    const fragment = document.createDocumentFragment();
    for (const token of this.arrived) {
      fragment.append(...this.tokenNodes(token, this.tokens.length));
      this.tokens.push(token);
    }
    this.arrived = [];
    element("text").append(fragment);
    this.setStatus({ kind: "writing", rate });
  }

  /** Shows prompt and tokens anew, after some of them went. */
  showText() {
    const prompt = Object.assign(document.createElement("span"), { className: "prompt", textContent: this.promptText });
    element("text").replaceChildren(prompt, ...this.tokens.flatMap((token, index) => this.tokenNodes(token, index)));
  }

  /** A token's spaces, which bear no shade, and the rest of it; a token of spaces alone is whole. */
  tokenNodes(token, index) {
    const [, spaces, word] = token.text.match(/^( *)(.*)$/s);
    return word === "" ? [this.tokenElement(token, index, token.text)] : [spaces, this.tokenElement(token, index, word)];
  }

  tokenElement(token, index, text) {
    const span = document.createElement("span");
    span.className = token.reason === "end" ? "token end" : "token";
    span.textContent = text;
    span.dataset.index = String(index);
    span.tabIndex = index === 0 ? 0 : -1;
    span.setAttribute("role", "button");
    span.setAttribute("aria-label", `${readable(token.label, this.texts)}, ${percent(token.probability)}`);
    const bits = -Math.log2(this.shownProbability(token, index));
    span.style.setProperty("--surprise", String(Math.min(1, bits / SURPRISING_BITS)));
    return span;
  }

  /** The probability of a token, times those of the bytes before it that complete its character. */
  shownProbability(token, index) {
    let probability = token.probability;
    for (let before = index - 1; before >= 0 && this.tokens[before].text === ""; before--) {
      probability *= this.tokens[before].probability;
    }
    return probability;
  }

  showRivals(target, isPinned) {
    const span = target.closest?.(".token");
    if (!span) return;
    const index = Number(span.dataset.index);
    this.card.open(span, index, this.tokens[index], this.texts, isPinned);
  }

  /** Arrows walk from token to token, Enter goes into the card. */
  onTextKey(event) {
    const span = event.target.closest?.(".token");
    if (!span) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const next = element("text").querySelector(`[data-index="${Number(span.dataset.index) + step}"]`);
      if (!next) return;
      span.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      this.showRivals(next, false);
    } else if ((event.key === "Enter" || event.key === " ") && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.showRivals(span, true);
      this.card.focus();
    }
  }

  setWriting(isWriting) {
    this.isWriting = isWriting;
    element("write").disabled = !this.isOpen;
    element("stop").disabled = !isWriting;
    element("more").hidden = isWriting || this.tokens.length === 0 || this.tokens.at(-1).reason === "end";
    element("text").classList.toggle("writing", isWriting);
  }

  setStatus(status) {
    this.status = status;
    const { texts } = this;
    const parts = [];
    if (status.kind === "loading" || status.kind === "ready" || status.kind === "reading") parts.push(texts[status.kind]);
    else if (status.kind === "error") parts.push(texts[status.message] ?? status.message);
    else {
      parts.push(`${this.tokens.length} ${texts.tokens}`);
      if (status.rate) parts.push(`${this.number(Math.round(status.rate))} ${texts.rate}`);
      parts.push(`${texts.usedSeed} ${this.settings.seed}`);
      if (status.kind === "stopped") parts.push(texts.reasonStop);
      if (status.reason === "end") parts.push(texts.reasonEnd);
    }
    element("status").classList.toggle("error", status.kind === "error");
    element("status").textContent = parts.join(" · ");
  }

  showTheme() {
    document.documentElement.dataset.theme = this.theme;
    element("theme").textContent = this.theme === "dark" ? "☀" : "☾";
  }

  showTexts() {
    const { texts } = this;
    document.documentElement.lang = this.language;
    for (const each of document.querySelectorAll("[data-text]")) each.textContent = texts[each.dataset.text];
    element("prompt").placeholder = texts.placeholder;
    element("text").dataset.empty = texts.empty;
    element("language").textContent = texts.language;
    element("language").lang = texts.otherLanguage;
    element("theme").setAttribute("aria-label", texts.theme);
    element("facts").textContent = this.facts().join(" · ");
    this.showSliders(texts);
    this.setStatus(this.status);
    this.card.close();
  }

  facts() {
    const { texts, info } = this;
    const { vocab_size: vocabulary, context_length: context } = info.config;
    const [unit, name] = texts.sizes.find(([size]) => info.num_parameters >= size);
    const count = info.num_parameters / unit;
    return [
      `${count.toFixed(count < 10 && unit > 1 ? 1 : 0)} ${name}`,
      `${this.number(vocabulary)} ${texts.vocabulary}`,
      `${this.number(context)} ${texts.context}`,
      texts[info.numbers],
    ];
  }

  number(value) {
    return value.toLocaleString(this.language);
  }
}

const page = new Page(JSON.parse(element("info").textContent));
document.addEventListener("DOMContentLoaded", () => page.open());
