/**
 * A text as its tokens, each on a ground of its own. One token is looked at by pointer or by the arrow keys; a line
 * below says what it is.
 */
import { isUnfinished, partsOf, partStyle, tokenElements } from "./characters.js";
import { html, useMemo, useState } from "./html.js";
import { t } from "./language.js";

/** @typedef {import("./types.js").Token} Token */

const NUM_TINTS = 5;
/** @type {WeakMap<readonly Token[], string[]>} names that were asked for, as long as their tokens live */
const namesOf = new WeakMap();
const CONTROL_SIGNS = /[\u0000-\u001f\u007f-\u009f]/g;

/**
 * A piece as it is seen: signs for spaces at its ends, for line breaks and for control characters.
 * @param {string} piece
 */
export function visiblePiece(piece) {
    return piece
        .replace(/^ +| +$/g, (spaces) => "\u00b7".repeat(spaces.length))
        .replaceAll("\n", "\u23ce")
        .replaceAll("\t", "\u21e5")
        .replace(CONTROL_SIGNS, (sign) => `\\x${sign.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/**
 * The piece, or the bytes of a token that is no whole character.
 * @param {Token} token
 */
export function tokenName(token) {
    return isUnfinished(token) ? `<${spacedBytes(token.bytes ?? "")}>` : visiblePiece(token.piece);
}

/**
 * The names of the tokens of a text; a part of a character is named by the character too, as `\u597d 1/3`.
 * @param {readonly Token[]} tokens
 */
export function tokenNames(tokens) {
    const known = namesOf.get(tokens);
    if (known !== undefined) return known;
    const parts = partsOf(tokens);
    const names = tokens.map((token, place) => {
        const part = parts[place] ?? null;
        return part === null ? tokenName(token) : `${visiblePiece(part.text)} ${part.index + 1}/${part.count}`;
    });
    namesOf.set(tokens, names);
    return names;
}

/**
 * What a token shows inside a text: line breaks are seen, and bytes that make no character.
 * @param {Token} token
 */
export function shownPiece(token) {
    return isUnfinished(token) ? tokenName(token) : token.piece.replaceAll("\n", "\u23ce\n").replace(/\r/g, "\u240d");
}

/**
 * Bytes in hexadecimal, a space between each two.
 * @param {string} bytes
 */
export function spacedBytes(bytes) {
    return (bytes.match(/../g) ?? []).join(" ").toUpperCase();
}

/**
 * @param {{ tokens: Token[], label: string, rest?: string, describe?: (token: Token, index: number) => string }} props
 * `rest` stands in the line below while no token is looked at; else it says how to look at one.
 */
export function TokenText({ tokens, label, rest = t("tokens.hint"), describe = describeToken }) {
    const [chosen, setChosen] = useState(-1);
    const token = tokens[chosen];
    const parts = useMemo(() => partsOf(tokens), [tokens]);
    /** @param {Event} event */
    const choose = (event) => {
        const place = /** @type {HTMLElement} */ (event.target).dataset?.["place"];
        if (place !== undefined) setChosen(Number(place));
    };
    /** @param {KeyboardEvent} event */
    const move = (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
        const next = event.key === "Home" ? 0 : event.key === "End" ? tokens.length - 1 : chosen + (step ?? NaN);
        if (Number.isNaN(next)) return;
        event.preventDefault();
        setChosen(Math.min(tokens.length - 1, Math.max(0, next)));
    };
    return html`<div class="token-text">
        <div
            class="token-body"
            role="application"
            aria-roledescription=${t("tokens.role")}
            aria-label=${label}
            tabIndex=${0}
            onPointerOver=${choose}
            onPointerDown=${choose}
            onKeyDown=${move}
        >${tokenElements(
            tokens,
            (place, part) => html`<${OneToken} key=${place} token=${tokens[place]} place=${place} part=${part} on=${place === chosen} />`,
            () => ({ name: "" }),
        )}</div>
        <p class="token-line" aria-live="polite">${token !== undefined ? `${describe(token, chosen)}${partText(parts[chosen] ?? null)}` : rest}</p>
    </div>`;
}

/**
 * @param {{ token: Token, place: number, part: import("./characters.js").Part | null, on: boolean }} props
 */
function OneToken({ token, place, part, on }) {
    const kind = part !== null ? " part" : isUnfinished(token) ? " token-bytes" : "";
    const names = `token tint-${place % NUM_TINTS}${on ? " token-on" : ""}${kind}`;
    return html`<span class=${names} style=${partStyle(part)} data-place=${place}>${part === null && shownPiece(token)}</span>`;
}

/**
 * Which part of a character a token is, after other facts; nothing for a whole one.
 * @param {import("./characters.js").Part | null} part
 */
export function partText(part) {
    return part === null ? "" : t("tokens.part", { number: part.index + 1, count: part.count, text: visiblePiece(part.text) });
}

/**
 * @param {Token} token
 * @param {number} index
 */
function describeToken(token, index) {
    const bytes = token.bytes ?? hexBytes(token.piece);
    return t("tokens.line", { place: index + 1, piece: tokenName(token), id: token.id, bytes: spacedBytes(bytes) });
}

/**
 * The UTF-8 bytes of a text in hexadecimal.
 * @param {string} text
 */
export function hexBytes(text) {
    return [...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
