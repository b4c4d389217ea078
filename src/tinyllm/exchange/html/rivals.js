/** The card of one token: its chance, its likeliest rivals, and the choice of another one. */

const GAP = 8, OPEN_MILLISECONDS = 120, CLOSE_MILLISECONDS = 180;
/** @typedef {import("./generation.js").Label} Label */
/** @typedef {import("./generation.js").Rival} Rival */
/** @typedef {import("./texts.js").Texts} Texts */
/** @typedef {import("./generation.js").Token & {part?: string}} ShownToken `part` is its place in a character */

/** @type {Record<string, string>} */
const NAMED = { "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** How a token looks in the card: leading spaces and line ends as signs. @param {Label} label @param {Texts} texts */
export function readable({ text, isBytes, isEnd }, texts) {
  if (isEnd) return texts.end;
  if (isBytes) return text;
  const shown = text.replace(/[\n\t\r]/g, (sign) => NAMED[sign]).replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
  return shown === "" ? texts.nothing : shown;
}

/** The name of a token of the text; bytes of a character have that of the character too. @param {ShownToken} token @param {Texts} texts */
export function nameOf({ label, part }, texts) {
  return part === undefined ? readable(label, texts) : `${readable(label, texts)} (${part})`;
}

/** A share of 1 in percent. @param {number} share */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1%";
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)}%`;
}

/** The card; it is open for one token at a time. */
export class RivalCard {
  /**
   * @param {HTMLElement} element
   * @param {(index: number, rivalId: number) => void} take called when a rival is chosen for a token
   */
  constructor(element, take) {
    this.element = element;
    this.take = take;
    /** @type {HTMLElement | null} */
    this.owner = null;
    this.isPinned = false;
    this.timer = 0;
    element.addEventListener("pointerenter", () => clearTimeout(this.timer));
    element.addEventListener("pointerleave", () => this.closeSoon());
    element.addEventListener("keydown", (event) => this.onKey(event));
  }

  /**
   * Shows the card beside `owner`; a pinned card stays until it is closed.
   * @param {HTMLElement} owner @param {number} index @param {ShownToken} token @param {Texts} texts @param {boolean} isPinned
   */
  open(owner, index, token, texts, isPinned) {
    clearTimeout(this.timer);
    this.owner?.classList.remove("open");
    this.owner = owner;
    this.isPinned = isPinned;
    owner.classList.add("open");
    this.fill(index, token, texts);
    this.element.hidden = false;
    this.place(owner);
  }

  close() {
    clearTimeout(this.timer);
    const hadFocus = this.element.contains(document.activeElement);
    this.element.hidden = true;
    this.owner?.classList.remove("open");
    if (hadFocus) this.owner?.focus();
    this.owner = null;
    this.isPinned = false;
  }

  /** Calls `show` if the pointer stays for a moment. @param {() => void} show */
  openSoon(show) {
    clearTimeout(this.timer);
    this.timer = window.setTimeout(show, OPEN_MILLISECONDS);
  }

  /** Closes a card that is not pinned, unless the pointer comes back. */
  closeSoon() {
    clearTimeout(this.timer);
    if (!this.isPinned) this.timer = window.setTimeout(() => this.close(), CLOSE_MILLISECONDS);
  }

  /** Moves the keyboard into the list. */
  focus() {
    const chosen = this.element.querySelector(".rival.chosen") ?? this.element.querySelector(".rival");
    /** @type {HTMLElement | null} */ (chosen)?.focus();
  }

  /** @param {number} index @param {ShownToken} token @param {Texts} texts */
  fill(index, token, texts) {
    const head = make("div", "head");
    const name = nameOf(token, texts).replace(/^·(?=.)/, "");
    const title = make("h2", "", `${name} · ${texts.chance} ${percent(token.probability)}`);
    const close = make("button", "close", "×");
    title.id = "rivals-title";
    close.setAttribute("aria-label", texts.close);
    close.addEventListener("click", () => this.close());
    head.append(title, close);
    const list = make("ol", "");
    const { id, label, probability, rivals } = token;
    // A token that was drawn against the odds stands below its rivals.
    const rows = rivals.some((rival) => rival.id === id) ? rivals : [...rivals, { id, label, probability }];
    for (const rival of rows) {
      const item = make("li", "");
      item.append(this.row(index, rival, rival.id === id, rivals[0].probability, texts));
      list.append(item);
    }
    this.element.replaceChildren(head, list, make("p", "muted", texts.choose));
  }

  /**
   * A rival as a button; the bar of the likeliest is full.
   * @param {number} index @param {Rival} rival @param {boolean} isChosen @param {number} largest @param {Texts} texts
   */
  row(index, rival, isChosen, largest, texts) {
    const button = make("button", isChosen ? "rival chosen" : "rival");
    const bar = make("span", "bar");
    bar.style.setProperty("--share", String(rival.probability / largest));
    button.append(labelElement(rival.label, texts), bar, make("span", "share", percent(rival.probability)));
    if (isChosen) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.take(index, rival.id));
    return button;
  }

  /** Puts the card below its token, or above it where the window ends. @param {HTMLElement} owner */
  place(owner) {
    if (getComputedStyle(this.element).position === "fixed") return; // a sheet at the bottom of a phone
    const box = owner.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const left = Math.min(Math.max(GAP, box.left), document.documentElement.clientWidth - width - GAP);
    const fitsBelow = box.bottom + GAP + height <= window.innerHeight || box.top < height + GAP;
    const top = fitsBelow ? box.bottom + GAP : box.top - height - GAP;
    this.element.style.left = `${left + window.scrollX}px`;
    this.element.style.top = `${top + window.scrollY}px`;
  }

  /** Arrows go through the rivals, Escape closes the card. @param {KeyboardEvent} event */
  onKey(event) {
    const rows = /** @type {HTMLElement[]} */ ([...this.element.querySelectorAll(".rival")]);
    const place = rows.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const step = /** @type {Record<string, number>} */ ({ ArrowDown: 1, ArrowUp: -1 })[event.key];
    if (event.key === "Escape") {
      event.stopPropagation();
      this.close();
    } else if (step && rows.length > 0) {
      event.preventDefault();
      rows[(place + step + rows.length) % rows.length].focus();
    }
  }
}

/** A token's text, with the sign of a leading space in grey. @param {Label} label @param {Texts} texts */
function labelElement(label, texts) {
  const isSign = label.isEnd || label.text === "";
  const piece = make("span", label.isBytes ? "piece bytes" : isSign ? "piece mark" : "piece");
  const [, spaces, word] = /** @type {RegExpMatchArray} */ (readable(label, texts).match(/^(·*)(.*)$/s));
  piece.append(make("span", "mark", spaces), word);
  return piece;
}

/**
 * A new element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} className @param {string} [text]
 */
function make(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
