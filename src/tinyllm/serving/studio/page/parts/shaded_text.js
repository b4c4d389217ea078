/**
 * A text as its tokens, each shaded by how surprising it is, with a card of rivals at the one that is looked at: by
 * pointer, by touch or by the arrow keys. Enter goes into the card, Escape leaves it.
 */
import { isUnfinished, jointLogprob, partsOf, partStyle, tokenElements } from "./characters.js";
import { heatStyle, percentText } from "./heat.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { listOf, t } from "./language.js";
import { partText, shownPiece, tokenName } from "./tokens.js";

/** @typedef {import("./play_types.js").Rival} Rival */
/**
 * @typedef {object} ShadedToken
 * @property {number} id
 * @property {string} piece
 * @property {string} [bytes]
 * @property {number | null} logprob
 * @property {Rival[]} [candidates] the likeliest tokens there, its own among them; none in a prompt
 * @property {Set<number>} [taken] ids that branches take there
 * @property {boolean} [fixed] part of the prompt
 */

const OPEN_MS = 90;
const CLOSE_MS = 220;
const MARGIN = 8;
/** In a narrow window the card lies at the bottom, and only a press opens it. */
const NARROW = matchMedia("(max-width: 560px)");

/**
 * @param {{ tokens: ShadedToken[], label: string, writing?: boolean, onTake?: (place: number, id: number) => void,
 *     onLook?: (place: number | null) => void }} props
 */
export function ShadedText({ tokens, label, writing = false, onTake, onLook }) {
    const [focus, setFocus] = useState(0);
    const [open, setOpen] = useState(-1);
    const frame = useRef(/** @type {HTMLElement | null} */ (null));
    const timer = useRef(0);
    const entering = useRef(false);
    useEffect(() => () => clearTimeout(timer.current), []);
    useLayoutEffect(() => {
        if (entering.current) focusRival(frame.current);
        entering.current = false;
    }, [open]);
    const stop = Math.min(focus, tokens.length - 1);
    const token = tokens[open];
    const parts = partsOf(tokens);

    /** @param {number} place @param {number} wait */
    const show = (place, wait) => {
        clearTimeout(timer.current);
        timer.current = setTimeout(() => setOpen(place), wait);
    };
    /** @param {PointerEvent} event */
    const over = (event) => {
        const place = placeOf(event);
        if (event.pointerType === "mouse" && !NARROW.matches && place !== null && !inCard(frame.current)) show(place, OPEN_MS);
    };
    /** @param {PointerEvent} event */
    const leave = (event) => event.pointerType === "mouse" && !inCard(frame.current) && show(-1, CLOSE_MS);
    /** @param {Event} event */
    const look = (event) => {
        const place = placeOf(event);
        if (place === null) return;
        setFocus(place);
        show(place, 0);
        onLook?.(place);
    };
    /** @param {FocusEvent} event */
    const blur = (event) => {
        if (frame.current?.contains(/** @type {Node | null} */ (event.relatedTarget))) return;
        show(-1, CLOSE_MS);
    };
    /** @param {KeyboardEvent} event */
    const press = (event) => {
        const within = inCard(frame.current);
        if (event.key === "Escape") {
            if (open < 0) return;
            if (within) focusToken(frame.current, open);
            setTimeout(() => show(-1, 0), 0);
        } else if (within) moveInCard(event);
        else if (["Enter", " ", "ArrowDown"].includes(event.key)) {
            event.preventDefault();
            if (open === stop) focusRival(frame.current);
            else {
                clearTimeout(timer.current);
                entering.current = true;
                setOpen(stop);
            }
        } else moveAlong(event, stop, tokens.length, frame.current);
        if (event.defaultPrevented || event.key === "Escape") event.stopPropagation();
    };
    return html`<div class="shaded" ref=${frame} onKeyDown=${press} onFocusOut=${blur} onPointerLeave=${leave}>
        <div class=${`shaded-body${writing ? " shaded-writing" : ""}`} role="group" aria-label=${label}
            onPointerOver=${over} onFocusIn=${look} onClick=${look}>
            ${tokenElements(
                tokens,
                (place, part) => html`<${OneToken} key=${place} token=${tokens[place]} place=${place} part=${part} stop=${place === stop} on=${place === open} />`,
                (group) => wholeLook(tokens, group),
            )}
        </div>
        ${parts.some((part) => part !== null) && html`<p class="hint parts-hint">${t("tokens.parts_hint")}</p>`}
        ${token !== undefined && html`<${RivalCard} token=${token} place=${open} part=${parts[open] ?? null} frame=${frame}
            onStay=${() => clearTimeout(timer.current)}
            onTake=${onTake && ((/** @type {number} */ id) => {
                focusToken(frame.current, open);
                show(-1, 0);
                onTake(open, id);
            })} />`}
    </div>`;
}

/** Whether the keyboard is in the card. @param {HTMLElement | null} frame */
function inCard(frame) {
    return frame?.querySelector(".rivals")?.contains(document.activeElement) ?? false;
}

/** @param {Event} event */
function placeOf({ target }) {
    const place = /** @type {HTMLElement} */ (target).closest?.("[data-place]")?.getAttribute("data-place");
    return place === null || place === undefined ? null : Number(place);
}

/** @param {HTMLElement | null} frame @param {number} place */
function focusToken(frame, place) {
    /** @type {HTMLElement | null | undefined} */ (frame?.querySelector(`[data-place="${place}"]`))?.focus();
}

/** Goes to the likeliest rival of the open card. @param {HTMLElement | null} frame */
function focusRival(frame) {
    const rivals = /** @type {HTMLElement[]} */ ([...(frame?.querySelectorAll("button.rival") ?? [])]);
    (rivals.find((each) => each.getAttribute("aria-current") !== "true") ?? rivals[0])?.focus();
}

/**
 * @param {KeyboardEvent} event
 * @param {number} place
 * @param {number} count
 * @param {HTMLElement | null} frame
 */
function moveAlong(event, place, count, frame) {
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: count - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    focusToken(frame, Math.min(count - 1, Math.max(0, next)));
}

/** @param {KeyboardEvent} event */
function moveInCard(event) {
    const rows = [.../** @type {HTMLElement} */ (event.currentTarget).querySelectorAll(".rival")];
    const place = rows.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    /** @type {HTMLElement | undefined} */ (rows[(next + rows.length) % rows.length])?.focus();
}

/**
 * A character of several tokens is shaded by the probability of all of them together.
 * @param {ShadedToken[]} tokens
 * @param {import("./characters.js").Group} group
 */
function wholeLook(tokens, group) {
    const logprob = jointLogprob(tokens, group);
    const title = logprob === null ? "" : t("tokens.together", { count: group.count, share: percentText(Math.exp(logprob)) });
    const names = ["heat-ground", tokens[group.first]?.fixed && "heat-fixed"];
    return { name: names.filter(Boolean).join(" "), style: heatStyle(logprob), title };
}

/**
 * @param {{ token: ShadedToken, place: number, part: import("./characters.js").Part | null, stop: boolean, on: boolean }} props
 */
function OneToken({ token, place, part, stop, on }) {
    const names = ["heat", on && "heat-on", part !== null ? "part" : isUnfinished(token) && "heat-bytes", token.fixed && "heat-fixed", token.fixed && token.logprob === null && "heat-start", token.taken && "heat-fork"];
    const chance = token.logprob !== null && percentText(Math.exp(token.logprob));
    return html`<span
        class=${names.filter(Boolean).join(" ")}
        style=${{ ...heatStyle(token.logprob), ...partStyle(part) }}
        role="button"
        tabIndex=${stop ? 0 : -1}
        data-place=${place}
        aria-label=${listOf([`${tokenName(token)}${partText(part)}`, chance, token.taken !== undefined && t("play.fork")])}
    >${part === null && shownPiece(token)}</span>`;
}

/**
 * The card of one token: its probability and its likeliest rivals, which can be taken.
 * @param {{ token: ShadedToken, place: number, part: import("./characters.js").Part | null,
 *     frame: { current: HTMLElement | null }, onStay: () => void, onTake?: (id: number) => void }} props
 */
function RivalCard({ token, place, part, frame, onStay, onTake }) {
    const card = useRef(/** @type {HTMLElement | null} */ (null));
    const { candidates = [], logprob } = token;
    useLayoutEffect(() => placeCard(frame.current, card.current, place), [place, candidates.length]);
    const most = Math.exp(candidates[0]?.logprob ?? 0);
    return html`<div class="rivals" ref=${card} role="group" aria-label=${t("play.rivals_of", { piece: tokenName(token) })} onPointerOver=${onStay}>
        ${part !== null && html`<p class="rivals-hint">${tokenName(token)}${partText(part)}</p>`}
        ${candidates.length === 0 && html`<p class="rivals-head">
            <span class="piece">${tokenName(token)}</span>
            <span>${logprob === null ? t("play.no_chance") : percentText(Math.exp(logprob))}</span>
        </p>`}
        ${candidates.length > 0 && html`<ul>${candidates.map((rival) => html`<li key=${rival.id}>
            <${RivalRow} rival=${rival} own=${rival.id === token.id} taken=${token.taken?.has(rival.id) ?? false} most=${most} onTake=${onTake} />
        </li>`)}</ul>`}
        ${candidates.length > 0 && onTake && html`<p class="rivals-hint">${t("play.take_hint")}</p>`}
    </div>`;
}

/**
 * @param {{ rival: Rival, own: boolean, taken: boolean, most: number, onTake?: (id: number) => void }} props
 */
function RivalRow({ rival, own, taken, most, onTake }) {
    const probability = Math.exp(rival.logprob);
    const content = html`<span class="rival-bar" aria-hidden="true" style=${{ width: `${(100 * probability) / most}%` }}></span>
        <span class="piece">${tokenName(rival)}</span>
        ${taken && html`<svg class="rival-fork" viewBox="0 0 12 12" role="img" aria-label=${t("play.fork")}><path d="M3 11V1M3 8c0-3 6-2 6-6" /></svg>`}
        <span class="rival-share">${percentText(probability)}</span>`;
    if (!onTake) return html`<span class="rival" aria-current=${own ? "true" : undefined}>${content}</span>`;
    return html`<button type="button" class="rival" tabIndex=${-1} aria-current=${own ? "true" : undefined} onClick=${() => onTake(rival.id)}>${content}</button>`;
}

/**
 * Puts the card below the token, or above it where the window ends; within the frame's width.
 * @param {HTMLElement | null} frame
 * @param {HTMLElement | null} card
 * @param {number} place
 */
function placeCard(frame, card, place) {
    const token = frame?.querySelector(`[data-place="${place}"]`);
    if (!frame || !card || !token) return;
    card.style.left = card.style.top = "";
    if (NARROW.matches) {
        const hidden = token.getBoundingClientRect().bottom + MARGIN - card.getBoundingClientRect().top;
        if (hidden > 0) scrollBy({ top: hidden });
        return;
    }
    const area = frame.getBoundingClientRect();
    const lines = token.getClientRects();
    const box = lines[lines.length - 1] ?? token.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = card;
    const left = Math.min(Math.max(MARGIN, box.left), document.documentElement.clientWidth - width - MARGIN);
    const below = box.bottom + height + MARGIN <= innerHeight || box.top < height + MARGIN;
    card.style.left = `${left - area.left}px`;
    card.style.top = `${(below ? box.bottom + 4 : box.top - height - 4) - area.top}px`;
}
