/**
 * The page: a prompt becomes a text, token by token, and every token can be asked for its rivals.
 *
 * Data reaches the document as text alone, never as HTML. The model runs in a worker (see `worker.js`).
 */

import { buildSliders, readSettings } from "./controls.js";
import { RivalCard } from "./rivals.js";
import { isPending, nodesFrom } from "./text_view.js";
import { TEXTS } from "./texts.js";

/** @typedef {import("./rivals.js").ShownToken} ShownToken */
/** @typedef {import("./texts.js").Texts} Texts */
/**
 * @typedef {{kind: "loading" | "ready" | "reading" | "error" | "writing" | "stopped" | "done", message?: string, rate?: number,
 *   reason?: ShownToken["reason"] | undefined}} Status
 */

/** An element of the template. @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** A field or button of the template. @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (document.getElementById(id));

/** The token that an event is about; null for none. @param {EventTarget | null} target */
function tokenAt(target) {
  return target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest(".token")) : null;
}

/** The state of the page and its parts. */
class Page {
  /** @param {import("./worker.js").Info} info */
  constructor(info) {
    this.info = info;
    /** @type {keyof typeof TEXTS} */
    this.language = navigator.language.startsWith("zh") ? "zh" : "en";
    this.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    this.run = 0;
    this.isOpen = false;
    this.isWriting = false;
    this.promptText = "";
    /** @type {number[] | null} */
    this.promptIds = [];
    /** @type {ShownToken[]} */
    this.tokens = [];
    /** @type {(ShownToken & {rate: number})[]} */
    this.arrived = [];
    /** @type {Status} */
    this.status = { kind: "loading" };
    /** @type {Worker | null} */
    this.worker = null;
    this.showSliders = buildSliders(element("sliders"));
    this.settings = /** @type {import("./generation.js").Settings} */ (readSettings()); // the fields have their defaults
    this.card = new RivalCard(element("rivals"), (index, id) => this.branch(index, id));
    element("title").textContent = info.title;
    field("prompt").value = info.prompt;
    /** @type {HTMLDetailsElement} */ (element("settings")).open = matchMedia("(min-width: 54rem)").matches;
    this.listen();
    this.showTheme();
    this.showTexts();
  }

  get texts() {
    return TEXTS[this.language];
  }

  /** Gives the model to a worker. Called once the whole file is read. */
  open() {
    /** @type {Record<string, string>} */
    const files = {};
    for (const script of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("script[data-file]"))) {
      files[script.dataset.file ?? ""] = script.textContent ?? "";
      script.remove(); // the worker has a copy; this one would only take memory
    }
    const source = new Blob([element("engine").textContent ?? ""], { type: "text/javascript" });
    try {
      this.worker = new Worker(URL.createObjectURL(source));
      this.worker.onerror = () => this.setStatus({ kind: "error", message: "noWorker" });
      this.worker.onmessage = ({ data }) => this.receive(data);
      this.worker.postMessage({ kind: "open", info: this.info, files });
    } catch {
      this.setStatus({ kind: "error", message: "noWorker" });
    }
  }

  listen() {
    element("write").addEventListener("click", () => this.write());
    element("stop").addEventListener("click", () => this.stop());
    element("more").addEventListener("click", () => this.readSettings() && this.start(this.tokens.length, null));
    element("language").addEventListener("click", () => {
      this.language = this.language === "en" ? "zh" : "en";
      this.showTexts();
    });
    element("theme").addEventListener("click", () => {
      this.theme = this.theme === "dark" ? "light" : "dark";
      this.showTheme();
    });
    element("shading").addEventListener("change", () => {
      element("text").classList.toggle("plain", !field("shading").checked);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.write();
      if (event.key !== "Escape") return;
      if (element("rivals").hidden) this.stop();
      else this.card.close();
    });
    document.addEventListener("pointerdown", ({ target }) => {
      if (!element("rivals").contains(/** @type {Node} */ (target)) && tokenAt(target) === null) this.card.close();
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
    if (!this.isOpen || !this.readSettings()) return;
    this.promptText = field("prompt").value;
    this.promptIds = null;
    this.start(0, null);
  }

  /** Goes on from token `index`, where a rival takes the place of the token that stood there. @param {number} index @param {number} id */
  branch(index, id) {
    this.card.close();
    if (this.readSettings()) this.start(index, id);
  }

  /** Whether the settings can be used; else the field that cannot has the focus. */
  readSettings() {
    const settings = readSettings();
    if (settings === null) field("seed").focus();
    else this.settings = settings;
    return settings !== null;
  }

  /** Asks the worker for the tokens after the first `numKept`. @param {number} numKept @param {number | null} forced */
  start(numKept, forced) {
    this.run += 1;
    this.tokens.length = numKept;
    this.arrived = [];
    this.card.close();
    this.showText();
    this.setWriting(true);
    this.setStatus({ kind: "reading" });
    const kept = this.tokens.map(({ id }) => id);
    const { run, promptText: text, promptIds: ids, settings } = this;
    this.worker?.postMessage({ kind: "generate", run, text, ids, kept, forced, settings });
  }

  stop() {
    if (!this.isWriting) return;
    this.showArrived();
    this.run += 1; // messages of the stopped run are ignored
    this.worker?.postMessage({ kind: "stop" });
    this.setWriting(false);
    this.setStatus({ ...this.status, kind: "stopped" });
  }

  /** @param {any} data a message of the worker */
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

  /** @param {any} data a message of the worker about the text that is written */
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
    const last = this.arrived.at(-1);
    if (last === undefined) return;
    let first = this.tokens.length;
    while (first > 0 && isPending(this.tokens[first - 1])) {
      first--; // its character may be complete
      element("text").querySelector(`[data-index="${first}"]`)?.remove();
    }
    this.tokens.push(...this.arrived);
    this.arrived = [];
    element("text").append(...nodesFrom(this.tokens, first, this.texts));
    this.setStatus({ kind: "writing", rate: last.rate });
  }

  /** Shows prompt and tokens anew, after some of them went. */
  showText() {
    const prompt = Object.assign(document.createElement("span"), { className: "prompt", textContent: this.promptText });
    element("text").replaceChildren(prompt, ...nodesFrom(this.tokens, 0, this.texts));
  }

  /** @param {EventTarget | null} target @param {boolean} isPinned */
  showRivals(target, isPinned) {
    const span = tokenAt(target);
    if (span === null) return;
    const index = Number(span.dataset.index);
    this.card.open(span, index, this.tokens[index], this.texts, isPinned);
  }

  /** Arrows walk from token to token, Enter goes into the card. @param {KeyboardEvent} event */
  onTextKey(event) {
    const span = tokenAt(event.target);
    if (span === null) return;
    const step = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 })[event.key];
    if (step) {
      event.preventDefault();
      const place = Number(span.dataset.index) + step;
      const next = /** @type {HTMLElement | null} */ (element("text").querySelector(`[data-index="${place}"]`));
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

  /** @param {boolean} isWriting */
  setWriting(isWriting) {
    this.isWriting = isWriting;
    field("write").disabled = !this.isOpen;
    field("stop").disabled = !isWriting;
    element("more").hidden = isWriting || this.tokens.length === 0 || this.tokens.at(-1)?.reason === "end";
    element("text").classList.toggle("writing", isWriting);
  }

  /** @param {Status} status */
  setStatus(status) {
    this.status = status;
    const { texts } = this;
    const parts = [];
    if (status.kind === "loading" || status.kind === "ready" || status.kind === "reading") parts.push(texts[status.kind]);
    else if (status.kind === "error") parts.push(/** @type {Record<string, any>} */ (texts)[status.message ?? ""] ?? status.message);
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
    for (const each of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-text]"))) {
      each.textContent = /** @type {Record<string, any>} */ (texts)[each.dataset.text ?? ""];
    }
    field("prompt").placeholder = texts.placeholder;
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
    const [unit, name] = /** @type {[number, string]} */ (texts.sizes.find(([size]) => info.num_parameters >= size));
    const count = info.num_parameters / unit;
    return [
      `${count.toFixed(count < 10 && unit > 1 ? 1 : 0)} ${name}`,
      `${this.number(vocabulary)} ${texts.vocabulary}`,
      `${this.number(context)} ${texts.context}`,
      texts[info.numbers],
    ];
  }

  /** @param {number} value */
  number(value) {
    return value.toLocaleString(this.language);
  }
}

const page = new Page(JSON.parse(element("info").textContent ?? ""));
document.addEventListener("DOMContentLoaded", () => page.open());
