/**
 * A text as its tokens, of which one is picked: under the pointer for a moment, by the arrow keys or a click for good.
 */
import { html } from "./html.js";
import { tokenName } from "./tokens.js";

/** @typedef {import("./types.js").Token} Token */

/**
 * @param {{ tokens: Token[], label: string, picked: number, kind: string, styleOf: (place: number) => Record<string, string>,
 *     nameOf: (place: number) => string, onPick: (place: number) => void, onHover: (place: number | null) => void }} props
 * `kind` is the class of each token; `nameOf` is what a token says to a screen reader.
 */
export function PickedText({ tokens, label, picked, kind, styleOf, nameOf, onPick, onHover }) {
    /** @param {Event} event */
    const hover = (event) => onHover(placeOf(event));
    /** @param {Event} event */
    const pick = (event) => {
        const place = placeOf(event);
        if (place !== null) onPick(place);
    };
    /** @param {KeyboardEvent} event */
    const press = (event) => {
        const place = placeOf(event);
        if (place === null) return;
        const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tokens.length - 1 }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        const body = /** @type {HTMLElement} */ (event.currentTarget);
        /** @type {HTMLElement | undefined} */ (body.children[Math.min(tokens.length - 1, Math.max(0, next))])?.focus();
    };
    return html`<div class="shaded-body picked-body" role="group" aria-label=${label}
        onPointerOver=${hover} onPointerLeave=${() => onHover(null)} onFocusIn=${pick} onClick=${pick} onKeyDown=${press}
    >${tokens.map((token, place) => html`<span
            key=${place}
            class=${`${kind}${place === picked ? " heat-on" : ""}${place === 0 ? " heat-start" : ""}`}
            style=${styleOf(place)}
            role="button"
            tabIndex=${place === picked ? 0 : -1}
            aria-pressed=${String(place === picked)}
            aria-label=${nameOf(place)}
            data-place=${place}
        >${shownPiece(token)}</span>`)}</div>`;
}

/** @param {Token} token */
function shownPiece(token) {
    const whole = token.bytes === undefined || !token.piece.includes("\ufffd");
    return whole ? token.piece.replaceAll("\n", "\u23ce\n").replace(/\r/g, "\u240d") : tokenName(token);
}

/** @param {Event} event */
function placeOf({ target }) {
    const place = /** @type {HTMLElement} */ (target).closest?.("[data-place]")?.getAttribute("data-place");
    return place === null || place === undefined ? null : Number(place);
}
