/** Attention weights on canvases: all heads as small maps, and one head large. Both follow the theme. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "../parts/html.js";
import { sentencesOf, t } from "../parts/language.js";
import { readColors } from "../parts/theme.js";
import { headWeights } from "../parts/trace.js";

/** @typedef {import("../parts/trace.js").Trace} Trace */
/** @typedef {{ layer: number, head: number }} Head */

const GAP = 4;
const LEAST_CELL = 14;
const MOST_CELL = 72;
const MOST_MAP = 420;
/** Pixels for the names beside and above a map, and from one name to the next. */
const NAME_WIDTH = 64;
const NAME_HEIGHT = 14;

/**
 * @param {{ trace: Trace, chosen: Head, look: string, onChoose: (head: Head) => void, onHover: (head: Head | null) => void }} props
 */
export function HeadGrid({ trace, chosen, look, onChoose, onHover }) {
    const { layers, heads } = trace;
    const frame = useRef(/** @type {HTMLElement | null} */ (null));
    const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
    const width = useWidth(frame);
    const cell = Math.min(MOST_CELL, Math.max(LEAST_CELL, Math.floor((width + GAP) / heads) - GAP));
    useEffect(() => {
        if (canvas.current !== null && width > 0) drawGrid(canvas.current, trace, cell);
    }, [trace, look, cell, width > 0]);
    /** @param {PointerEvent | MouseEvent} event @returns {Head | null} */
    const at = (event) => {
        const box = canvas.current?.getBoundingClientRect();
        if (box === undefined) return null;
        const head = Math.floor((event.clientX - box.left) / (cell + GAP));
        const layer = Math.floor((event.clientY - box.top) / (cell + GAP));
        return layer >= 0 && layer < layers && head >= 0 && head < heads ? { layer, head } : null;
    };
    /** @param {KeyboardEvent} event */
    const press = (event) => {
        const { layer, head } = chosen;
        const next = {
            ArrowRight: { layer, head: head + 1 }, ArrowLeft: { layer, head: head - 1 },
            ArrowDown: { layer: layer + 1, head }, ArrowUp: { layer: layer - 1, head },
        }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        onChoose({ layer: clamp(next.layer, layers), head: clamp(next.head, heads) });
    };
    const place = t("inside.head_of", { layer: chosen.layer + 1, head: chosen.head + 1 });
    const label = sentencesOf([t("inside.heads"), `${t("inside.heads_keys")} ${place}`]);
    return html`<div class="heads-part">
        <p class="hint">${t("inside.heads")}</p>
        <div class="heads-frame" ref=${frame} role="application" aria-label=${label} tabIndex=${0} onKeyDown=${press}>
            <div class="heads">
                <canvas ref=${canvas}
                    onPointerMove=${(/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && onHover(at(event))}
                    onPointerLeave=${() => onHover(null)}
                    onClick=${(/** @type {MouseEvent} */ event) => {
                        const head = at(event);
                        if (head !== null) onChoose(head);
                    }}></canvas>
                <span class="heads-chosen" aria-hidden="true" style=${{
                    left: `${chosen.head * (cell + GAP) - 2}px`, top: `${chosen.layer * (cell + GAP) - 2}px`,
                    width: `${cell + 4}px`, height: `${cell + 4}px`,
                }}></span>
            </div>
        </div>
    </div>`;
}

/**
 * A head's weights with the tokens' names along its sides: each of them, or every so many where they would overlap.
 * @param {{ map: Uint8Array, names: string[], token: number, look: string, label: string } & import("./inside_loss.js").Pointing} props
 */
export function HeadMap({ map, names, token, look, label, onPick, onHover }) {
    const frame = useRef(/** @type {HTMLElement | null} */ (null));
    const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
    const numTokens = names.length;
    const side = Math.max(0, Math.min(MOST_MAP, useWidth(frame) - NAME_WIDTH));
    const cell = side / numTokens;
    useEffect(() => {
        if (canvas.current !== null && side > 0) drawMap(canvas.current, map, numTokens, side);
    }, [map, look, side]);
    /** @param {PointerEvent | MouseEvent} event */
    const rowOf = (event) => {
        const box = canvas.current?.getBoundingClientRect();
        return box === undefined ? 0 : clamp(Math.floor((event.clientY - box.top) / cell), numTokens);
    };
    return html`<div class="map-frame" ref=${frame}>
        ${side > 0 && html`<${SideNames} names=${names} cell=${cell} token=${token} />`}
        <div class="map" style=${{ "--names": `${NAME_WIDTH}px` }}>
            <canvas ref=${canvas} role="img" aria-label=${label}
                onPointerMove=${(/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && onHover(rowOf(event))}
                onPointerLeave=${() => onHover(null)}
                onClick=${(/** @type {MouseEvent} */ event) => onPick(rowOf(event))}></canvas>
            <span class="map-row" aria-hidden="true" style=${{ top: `${token * cell - 1}px`, width: `${side}px`, height: `${Math.max(3, cell) + 2}px` }}></span>
        </div>
    </div>`;
}

/**
 * Names beside the rows and above the columns; that of the row that is looked at is always there.
 * @param {{ names: string[], cell: number, token: number }} props
 */
function SideNames({ names, cell, token }) {
    const every = Math.max(1, Math.ceil(NAME_HEIGHT / cell));
    const shown = [...names.keys()].filter((place) => place === token || (place % every === 0 && Math.abs(place - token) >= every));
    const middle = (/** @type {number} */ place) => `${NAME_WIDTH + (place + 0.5) * cell}px`;
    return html`<div class="map-names" aria-hidden="true" style=${{ "--names": `${NAME_WIDTH}px` }}>
        ${shown.map((place) => html`<span key=${`row ${place}`} class=${`map-name map-name-row${place === token ? " map-name-on" : ""}`} style=${{ top: middle(place) }}>${names[place]}</span>`)}
        ${shown.map((place) => html`<span key=${`column ${place}`} class=${`map-name map-name-column${place === token ? " map-name-on" : ""}`} style=${{ left: middle(place) }}>${names[place]}</span>`)}
    </div>`;
}

/** @param {number} value @param {number} count */
function clamp(value, count) {
    return Math.min(count - 1, Math.max(0, value));
}

/**
 * The width of an element, 0 before it is known.
 * @param {{ current: HTMLElement | null }} element
 */
function useWidth(element) {
    const [width, setWidth] = useState(0);
    useLayoutEffect(() => {
        const holder = element.current;
        if (holder === null) return undefined;
        const observer = new ResizeObserver(() => setWidth(holder.clientWidth));
        observer.observe(holder);
        setWidth(holder.clientWidth);
        return () => observer.disconnect();
    }, []);
    return width;
}

/** @param {HTMLCanvasElement} canvas @param {Trace} trace @param {number} cell */
function drawGrid(canvas, trace, cell) {
    const { layers, heads, tokens } = trace;
    const scale = sized(canvas, heads * (cell + GAP) - GAP, layers * (cell + GAP) - GAP);
    const context = canvas.getContext("2d");
    if (context === null) return;
    const colors = mapColors();
    context.imageSmoothingEnabled = tokens.length * 1.5 > cell * scale;
    for (let layer = 0; layer < layers; layer++) {
        for (let head = 0; head < heads; head++) {
            const image = mapImage(headWeights(trace, layer, head), tokens.length, colors);
            context.drawImage(image, head * (cell + GAP) * scale, layer * (cell + GAP) * scale, cell * scale, cell * scale);
        }
    }
}

/** @param {HTMLCanvasElement} canvas @param {Uint8Array} map @param {number} numTokens @param {number} side */
function drawMap(canvas, map, numTokens, side) {
    const scale = sized(canvas, side, side);
    const context = canvas.getContext("2d");
    if (context === null) return;
    context.imageSmoothingEnabled = false;
    context.drawImage(mapImage(map, numTokens, mapColors()), 0, 0, side * scale, side * scale);
}

/**
 * Gives a canvas its size in CSS pixels; returns how many of its own one has.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
function sized(canvas, width, height) {
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    return scale;
}

/** @returns {{ low: number[], high: number[] }} the colours of weights 0 and 1 */
function mapColors() {
    const colors = readColors(["--sunken", "--map-high"]);
    return { low: channels(colors["--sunken"]), high: channels(colors["--map-high"]) };
}

/** @param {string | undefined} color as `rgb(r, g, b)` */
function channels(color) {
    return (color?.match(/[\d.]+/g) ?? ["0", "0", "0"]).slice(0, 3).map(Number);
}

/**
 * Weights as an image with a pixel each. Colours follow the square root, so that small weights are seen.
 * @param {Uint8Array} map
 * @param {number} numTokens
 * @param {{ low: number[], high: number[] }} colors
 */
function mapImage(map, numTokens, { low, high }) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = numTokens;
    const context = canvas.getContext("2d");
    if (context === null) return canvas;
    const image = context.createImageData(numTokens, numTokens);
    for (const [place, weight] of map.entries()) {
        const share = Math.sqrt(weight / 255);
        const isLater = place % numTokens > Math.floor(place / numTokens);
        for (let channel = 0; channel < 3; channel++) {
            const [from, to] = [low[channel] ?? 0, high[channel] ?? 0];
            image.data[place * 4 + channel] = from + (to - from) * share;
        }
        image.data[place * 4 + 3] = isLater ? 0 : 255;
    }
    context.putImageData(image, 0, 0);
    return canvas;
}
