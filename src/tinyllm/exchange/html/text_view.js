/** How tokens look in the text: shaded, without the spaces before them, and together where several make a character. */

import { nameOf, percent } from "./rivals.js";

const SURPRISING_BITS = Math.log2(1000); // a token of this information, 1 in 1,000, has the full shade, as in the studio

/** @typedef {import("./rivals.js").ShownToken} ShownToken */
/** @typedef {import("./texts.js").Texts} Texts */

/** Whether a token is bytes that make no character yet. @param {ShownToken} token */
export function isPending({ text, label, reason }) {
  return text === "" && label.isBytes && reason === null;
}

/** Whether a token's bytes complete the character that bytes before it began. @param {ShownToken} token */
function completes({ text, label }) {
  return label.isBytes && text !== "" && !text.includes("\ufffd");
}

/** Shades an element by how surprising its token is. @param {HTMLElement} span @param {number} probability */
function shade(span, probability) {
  span.style.setProperty("--surprise", String(Math.min(1, -Math.log2(probability) / SURPRISING_BITS)));
}

/**
 * What the tokens from one on are in the text; those of one character are the parts of an element.
 * @param {ShownToken[]} tokens @param {number} first @param {Texts} texts
 */
export function nodesFrom(tokens, first, texts) {
  /** @type {(Node | string)[]} */
  const nodes = [];
  for (let index = first; index < tokens.length; index++) {
    let last = index;
    while (last < tokens.length - 1 && isPending(tokens[last])) last++;
    if (last > index && completes(tokens[last])) nodes.push(characterElement(tokens.slice(index, last + 1), index, texts));
    else for (let each = index; each <= last; each++) nodes.push(...tokenNodes(tokens[each], each, texts));
    index = last;
  }
  return nodes;
}

/**
 * A character of several tokens, shaded by the product of their probabilities; its parts lie over it.
 * @param {ShownToken[]} tokens those of the character @param {number} first place of the first @param {Texts} texts
 */
function characterElement(tokens, first, texts) {
  const { text } = tokens[tokens.length - 1];
  const probability = tokens.reduce((product, token) => product * token.probability, 1);
  const box = Object.assign(document.createElement("span"), { className: "character" });
  const shown = Object.assign(document.createElement("span"), { className: "character-text", textContent: text });
  shown.setAttribute("aria-hidden", "true");
  box.title = `${tokens.length} ${texts.together} ${percent(probability)}`;
  shade(box, probability);
  box.append(shown);
  for (const [place, token] of tokens.entries()) {
    token.part = `${text} ${place + 1}/${tokens.length}`;
    const part = tokenElement(token, first + place, "", texts);
    part.classList.add("part");
    part.style.setProperty("--part", String(place));
    part.style.setProperty("--parts", String(tokens.length));
    box.append(part);
  }
  return box;
}

/**
 * A token's spaces, which bear no shade, and the rest of it; a token of spaces alone is whole.
 * @param {ShownToken} token @param {number} index @param {Texts} texts
 */
function tokenNodes(token, index, texts) {
  token.part = undefined; // its character may have lost a token
  const [, spaces, word] = /** @type {RegExpMatchArray} */ (token.text.match(/^( *)(.*)$/s));
  return word === "" ? [tokenElement(token, index, token.text, texts)] : [spaces, tokenElement(token, index, word, texts)];
}

/** The element of a token, which shows `text`. @param {ShownToken} token @param {number} index @param {string} text @param {Texts} texts */
function tokenElement(token, index, text, texts) {
  const span = document.createElement("span");
  span.className = token.reason === "end" ? "token end" : "token";
  span.textContent = text;
  span.dataset.index = String(index);
  span.tabIndex = index === 0 ? 0 : -1;
  span.setAttribute("role", "button");
  span.setAttribute("aria-label", `${nameOf(token, texts)}, ${percent(token.probability)}`);
  shade(span, token.probability);
  return span;
}
