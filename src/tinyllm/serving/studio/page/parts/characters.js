/**
 * Characters that are made of several tokens: a tokenizer without a piece for 好 writes its three bytes one by one. The
 * page shows the character, and its tokens as equal parts of it, each of which can be pointed at. Pure functions, and
 * the element that holds the parts.
 */
import { html } from "./html.js";

/** @typedef {{ piece: string, bytes?: string | undefined }} Piece */
/**
 * @typedef {object} Group Tokens that follow one another.
 * @property {number} first place of the first
 * @property {number} count
 * @property {string} text of all of them; of one token, its piece
 */
/** @typedef {{ text: string, index: number, count: number }} Part A token's place in a character, from 0. */

/** Tokens are tried together up to this number: a character has four bytes at most, and may begin inside a token. */
const MOST_TOKENS = 8;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Whether a token is no whole text by itself.
 * @param {Piece} token
 */
export function isUnfinished({ piece, bytes }) {
    return bytes !== undefined && piece.includes("\ufffd") && decoded(bytes) === null;
}

/**
 * The tokens of a text in groups: those whose bytes make characters only together, and all others alone.
 * @param {readonly Piece[]} tokens
 * @returns {Group[]}
 */
export function groupCharacters(tokens) {
    /** @type {Group[]} */
    const groups = [];
    for (let first = 0; first < tokens.length; first += /** @type {Group} */ (groups.at(-1)).count) {
        groups.push(groupAt(tokens, first));
    }
    return groups;
}

/**
 * @param {readonly Piece[]} tokens
 * @param {number} first
 * @returns {Group}
 */
function groupAt(tokens, first) {
    let bytes = "";
    for (let place = first; place < Math.min(tokens.length, first + MOST_TOKENS); place++) {
        const token = tokens[place];
        if (token === undefined || !isUnfinished(token)) break;
        bytes += token.bytes ?? "";
        const text = decoded(bytes);
        if (text !== null) return { first, count: place - first + 1, text };
    }
    return { first, count: 1, text: tokens[first]?.piece ?? "" };
}

/**
 * The text of bytes; null if they are none.
 * @param {string} bytes in hexadecimal
 */
export function decoded(bytes) {
    try {
        return decoder.decode(Uint8Array.from(bytes.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)));
    } catch {
        return null; // a part of a character, or no UTF-8 at all
    }
}

/**
 * The part that each token is of a character; null for one that is a text by itself.
 * @param {readonly Piece[]} tokens
 * @returns {(Part | null)[]}
 */
export function partsOf(tokens) {
    return groupCharacters(tokens).flatMap(({ count, text }) =>
        count === 1 ? [null] : Array.from({ length: count }, (_, index) => ({ text, index, count })));
}

/**
 * The log-probability of all tokens of a group: the sum. Null if one has none.
 * @param {readonly { logprob: number | null }[]} tokens
 * @param {Group} group
 */
export function jointLogprob(tokens, { first, count }) {
    let sum = 0;
    for (const { logprob } of tokens.slice(first, first + count)) {
        if (logprob === null) return null;
        sum += logprob;
    }
    return sum;
}

/**
 * Tokens as elements, with those of one character inside an element of their own.
 * @param {readonly Piece[]} tokens
 * @param {(place: number, part: Part | null) => import("./html.js").Element} one the element of a token; that of a
 *     part is empty, and lies over the character (`partStyle`)
 * @param {(group: Group) => { name: string, style?: Record<string, string>, title?: string }} whole how a character looks
 */
export function tokenElements(tokens, one, whole) {
    return groupCharacters(tokens).map((group) => {
        const { first, count, text } = group;
        if (count === 1) return one(first, null);
        const { name, style, title } = whole(group);
        return html`<span key=${`character ${first}`} class=${`character ${name}`} style=${style} title=${title}>
            <span class="character-text" aria-hidden="true">${text}</span>
            ${Array.from({ length: count }, (_, index) => one(first + index, { text, index, count }))}
        </span>`;
    });
}

/**
 * The place of a part over its character; the style sheet makes a position of it.
 * @param {Part | null} part
 * @returns {Record<string, string>}
 */
export function partStyle(part) {
    return part === null ? {} : { "--part": String(part.index), "--parts": String(part.count) };
}
