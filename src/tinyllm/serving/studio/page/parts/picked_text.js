/**
 * A text as its tokens, of which one is picked: under the pointer for a moment, by the arrow keys or a click for good.
 */
import { isUnfinished, partStyle, tokenElements } from "./characters.js";
import { html } from "./html.js";
import { shownPiece } from "./tokens.js";

/** @typedef {import("./types.js").Token} Token */

/**
 * @param {{ tokens: Token[], label: string, picked: number, kind: string, styleOf: (place: number) => Record<string, string>,
 *     nameOf: (place: number) => string, onPick: (place: number) => void, onHover: (place: number | null) => void,
 *     wholeStyle?: (group: import("./characters.js").Group) => { style?: Record<string, string>, title?: string } }} props
 * `kind` is the class of each token; `nameOf` is what a token says to a screen reader; `wholeStyle` is the look of a
 * character of several tokens.
 */
export function PickedText({ tokens, label, picked, kind, styleOf, nameOf, onPick, onHover, wholeStyle }) {
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
        /** @type {HTMLElement | null} */ (body.querySelector(`[data-place="${Math.min(tokens.length - 1, Math.max(0, next))}"]`))?.focus();
    };
    /** @param {number} place @param {import("./characters.js").Part | null} part */
    const element = (place, part) => {
        const token = /** @type {Token} */ (tokens[place]);
        const names = [kind, place === picked && "heat-on", place === 0 && "heat-start", part !== null ? "part" : isUnfinished(token) && "heat-bytes"];
        return html`<span
            key=${place}
            class=${names.filter(Boolean).join(" ")}
            style=${{ ...styleOf(place), ...partStyle(part) }}
            role="button"
            tabIndex=${place === picked ? 0 : -1}
            aria-pressed=${String(place === picked)}
            aria-label=${nameOf(place)}
            data-place=${place}
        >${part === null && shownPiece(token)}</span>`;
    };
    return html`<div class="shaded-body picked-body" role="group" aria-label=${label}
        onPointerOver=${hover} onPointerLeave=${() => onHover(null)} onFocusIn=${pick} onClick=${pick} onKeyDown=${press}
    >${tokenElements(tokens, element, (group) => ({ name: `${kind}-ground`, ...wholeStyle?.(group) }))}</div>`;
}

/** @param {Event} event */
function placeOf({ target }) {
    const place = /** @type {HTMLElement} */ (target).closest?.("[data-place]")?.getAttribute("data-place");
    return place === null || place === undefined ? null : Number(place);
}
