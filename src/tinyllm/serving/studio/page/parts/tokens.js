/**
 * A text as its tokens, each on a ground of its own. One token is looked at by pointer or by the arrow keys; a line
 * below says what it is.
 */
import { html, useState } from "./html.js";
import { t } from "./language.js";

/** @typedef {import("./types.js").Token} Token */

const NUM_TINTS = 5;
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
    const unfinished = token.bytes !== undefined && token.piece.includes("\ufffd");
    return unfinished ? `<${spacedBytes(token.bytes ?? "")}>` : visiblePiece(token.piece);
}

/**
 * Bytes in hexadecimal, a space between each two.
 * @param {string} bytes
 */
export function spacedBytes(bytes) {
    return (bytes.match(/../g) ?? []).join(" ").toUpperCase();
}

/**
 * @param {{ tokens: Token[], label: string, hint?: boolean, describe?: (token: Token, index: number) => string }} props
 */
export function TokenText({ tokens, label, hint = true, describe = describeToken }) {
    const [chosen, setChosen] = useState(-1);
    const token = tokens[chosen];
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
        >${tokens.map((each, place) => html`<${OneToken} key=${place} token=${each} place=${place} on=${place === chosen} />`)}</div>
        <p class="token-line" aria-live="polite">${token !== undefined ? describe(token, chosen) : hint && t("tokens.hint")}</p>
    </div>`;
}

/**
 * @param {{ token: Token, place: number, on: boolean }} props
 */
function OneToken({ token, place, on }) {
    const whole = token.bytes === undefined || !token.piece.includes("\ufffd");
    const text = whole ? token.piece.replaceAll("\n", "\u23ce\n").replace(/\r/g, "\u240d") : tokenName(token);
    const names = `token tint-${place % NUM_TINTS}${on ? " token-on" : ""}${whole ? "" : " token-bytes"}`;
    return html`<span class=${names} data-place=${place}>${text}</span>`;
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
