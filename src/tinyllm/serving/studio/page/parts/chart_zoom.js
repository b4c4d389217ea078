/** Zoom and cursor of a chart: by dragging, by keys and by touch. */

/** @typedef {import("./charts.js").ChartProps} ChartProps */
/** @typedef {import("./charts.js").Range} Range */
/** @typedef {import("../vendor/uplot/uPlot.js").default} uPlot */

const ZOOM_STEP = 0.6;
const PAN_STEP = 0.15;

/**
 * Arrow keys move the cursor, with Shift the range; + and - zoom around the cursor; 0 and Escape show all.
 * @param {uPlot} plot
 * @param {ChartProps} props
 * @param {KeyboardEvent} event
 */
export function pressKey(plot, props, event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const direction = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const factor = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP }[event.key];
    if (direction !== undefined && event.shiftKey) shiftRange(plot, props, direction * PAN_STEP);
    else if (direction !== undefined) moveCursor(plot, direction);
    else if (factor !== undefined) zoomAround(plot, props, cursorX(plot), factor);
    else if (event.key === "0" || (event.key === "Escape" && props.zoom)) props.onZoom?.(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
}

/**
 * @param {uPlot} plot
 * @param {number} direction
 */
function moveCursor(plot, direction) {
    const places = plot.data[0];
    const { min, max } = plot.scales["x"] ?? {};
    const shown = /** @type {[number, number]} */ (plot.series[0]?.idxs ?? [0, places.length - 1]);
    const before = cursorX(plot) === null ? null : plot.cursor.idx;
    const start = direction > 0 ? shown[0] - 1 : shown[1] + 1;
    const next = Math.min(shown[1], Math.max(shown[0], (before ?? start) + direction));
    const x = places[next];
    if (x === undefined || min === undefined || max === undefined) return;
    plot.setCursor({ left: plot.valToPos(x, "x"), top: plot.over.clientHeight / 2 });
}

/**
 * @param {uPlot} plot
 * @param {ChartProps} props
 * @param {number} share of the range
 */
function shiftRange(plot, props, share) {
    const range = currentRange(plot);
    if (range === null || !props.zoom) return;
    const [low, high] = wholeRange(plot);
    const width = range[1] - range[0];
    const start = Math.min(high - width, Math.max(low, range[0] + width * share));
    props.onZoom?.([start, start + width]);
}

/**
 * @param {uPlot} plot
 * @param {ChartProps} props
 * @param {number | null} center
 * @param {number} factor
 */
function zoomAround(plot, props, center, factor) {
    const range = currentRange(plot);
    if (range === null) return;
    const next = zoomedRange(range, wholeRange(plot), center, factor);
    props.onZoom?.(next);
}

/**
 * The range after a zoom by `factor` around `center`; null for all.
 * @param {Range} range
 * @param {Range} whole
 * @param {number | null} center null zooms around the middle
 * @param {number} factor below 1 shows less
 * @returns {Range | null}
 */
export function zoomedRange(range, whole, center, factor) {
    const middle = center ?? (range[0] + range[1]) / 2;
    const low = Math.max(whole[0], middle - (middle - range[0]) * factor);
    const high = Math.min(whole[1], middle + (range[1] - middle) * factor);
    return low <= whole[0] && high >= whole[1] ? null : [low, high];
}

/**
 * @param {uPlot} plot
 * @returns {Range | null}
 */
function currentRange(plot) {
    const { min, max } = plot.scales["x"] ?? {};
    return typeof min === "number" && typeof max === "number" ? [min, max] : null;
}

/**
 * @param {uPlot} plot
 * @returns {Range}
 */
function wholeRange(plot) {
    const places = plot.data[0];
    return [places[0] ?? 0, places.at(-1) ?? 1];
}

/** @param {uPlot} plot */
export function cursorX(plot) {
    const left = plot.cursor.left ?? -1;
    if (left < 0) return null;
    const place = plot.cursor.idx;
    return place === null || place === undefined ? null : (plot.data[0][place] ?? null);
}

/**
 * @param {uPlot} plot
 * @param {ChartProps} props
 */
export function zoomToSelection(plot, { onZoom }) {
    const { left, width } = plot.select;
    if (width < 4 || onZoom === undefined) return;
    const range = /** @type {Range} */ ([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    onZoom(range);
}

/**
 * A finger that moves across the chart moves the cursor.
 * @param {uPlot} plot
 */
export function bindTouch(plot) {
    /** @param {TouchEvent} event */
    const follow = (event) => {
        const touch = event.touches[0];
        if (touch === undefined || event.touches.length > 1) return;
        const box = plot.over.getBoundingClientRect();
        plot.setCursor({ left: touch.clientX - box.left, top: box.height / 2 });
    };
    plot.over.addEventListener("touchstart", follow, { passive: true });
    plot.over.addEventListener("touchmove", follow, { passive: true });
}
