/**
 * Charts by uPlot: zoom by dragging, by keys and by touch, values under the cursor, marks along the axis.
 *
 * Colours are names of custom properties such as `--series-1`, so that a chart follows the theme.
 */
import uPlot from "../vendor/uplot/uPlot.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { t } from "./language.js";
import { readColors } from "./theme.js";

/**
 * @typedef {object} ChartSeries
 * @property {string} label
 * @property {string} color name of a custom property
 * @property {number[]} x increasing
 * @property {(number | null)[]} y
 * @property {boolean} [faint] drawn thin behind the others, and not named
 * @property {boolean} [filled] the ground below the curve is tinted
 * @property {boolean} [points] each value has a point
 * @property {number[]} [edges] makes a histogram: value k stands between edges k and k + 1
 *
 * @typedef {{ x: number, kind: string, color: string, text: string }} ChartMark
 * @typedef {[number, number]} Range
 *
 * @typedef {object} ChartProps
 * @property {string} title
 * @property {string} [note] stands beside the title
 * @property {ChartSeries[]} series
 * @property {(value: number, increment?: number) => string} formatX of the axis; `increment` is between its lines
 * @property {(value: number) => string} formatY
 * @property {(value: number, increment?: number) => string} [formatTick] for the numbers of the vertical axis
 * @property {string} xLabel
 * @property {boolean} [logX]
 * @property {boolean} [logY]
 * @property {boolean} [fromZero] the vertical axis begins at 0
 * @property {boolean} [binary] the vertical axis counts bytes, and its lines stand at powers of 2
 * @property {Range | null} [zoom]
 * @property {(zoom: Range | null) => void} [onZoom]
 * @property {(x: number) => string} [nameX] what stands for x in the line of values
 * @property {ChartMark[]} [marks]
 * @property {boolean} [quiet] values stand beside the title only while the cursor is in the chart
 * @property {string} [group] charts of one group share the cursor
 * @property {number} [height] in pixels
 * @property {string} look changes when the colours or the language do
 */

const ZOOM_STEP = 0.6;
const PAN_STEP = 0.15;
const POWERS_OF_2 = Array.from({ length: 50 }, (_, power) => 2 ** power);
const MARK_SIGNS = /** @type {Record<string, string>} */ ({ resume: "\u25b6", skip: "\u00d7", save: "\u25cf", stop: "\u25a0" });

/** @param {ChartProps} props */
export function Chart(props) {
    const { title, note, series, formatY, nameX, formatX, height = 200 } = props;
    const frame = useRef(/** @type {HTMLDivElement | null} */ (null));
    const plot = useRef(/** @type {uPlot | null} */ (null));
    const latest = useRef(props);
    const [cursor, setCursor] = useState(/** @type {number | null} */ (null));
    latest.current = props;
    const shape = structureOf(props);

    useEffect(() => {
        const holder = frame.current;
        if (holder === null) return undefined;
        const made = makePlot(latest, holder, height, setCursor);
        plot.current = made;
        const observer = new ResizeObserver(() => made.setSize({ width: holder.clientWidth, height }));
        observer.observe(holder);
        return () => {
            observer.disconnect();
            made.destroy();
            plot.current = null;
        };
    }, [shape]);

    useEffect(() => {
        plot.current?.setData(alignedData(series), false);
        if (plot.current) showZoom(plot.current, latest.current);
    }, [series, props.marks, props.zoom?.[0], props.zoom?.[1], shape]);

    const named = series.filter((each) => !each.faint);
    const empty = series.every((each) => each.x.length === 0);
    const at = cursor ?? lastX(series);
    return html`<figure class="chart">
        <figcaption class="chart-head">
            <span class="chart-title">${title}${note && html`<span class="chart-note">${note}</span>`}</span>
            <span class="chart-values">
                ${cursor !== null && html`<span class="chart-x">${(nameX ?? formatX)(cursor)}</span>`}
                ${(cursor !== null || !props.quiet) && named.map((each) => html`<${ChartValue} key=${each.label} series=${each} x=${at} format=${formatY} alone=${named.length === 1 && !props.quiet} />`)}
            </span>
        </figcaption>
        <div
            class="chart-frame"
            ref=${frame}
            role="application"
            aria-roledescription=${t("chart.role")}
            aria-label=${chartLabel(props)}
            tabIndex=${0}
            onKeyDown=${(/** @type {KeyboardEvent} */ event) => plot.current && pressKey(plot.current, latest.current, event)}
        ></div>
        ${empty && html`<p class="chart-empty">${t("chart.empty")}</p>`}
    </figure>`;
}

/**
 * @param {{ series: ChartSeries, x: number, format: (value: number) => string, alone: boolean }} props
 */
function ChartValue({ series, x, format, alone }) {
    const value = valueAt(series, x);
    return html`<span class="chart-value">
        ${!alone && html`<span class=${`swatch ${swatchClass(series.color)}`} aria-hidden="true"></span>
            <span class="chart-value-name">${series.label}</span>`}
        <span class="chart-value-number">${value === null ? "\u2013" : format(value)}</span>
    </span>`;
}

/**
 * The class that gives an element the colour of a custom property: `--series-1` -> `ground-series-1`.
 * @param {string} color
 */
export function swatchClass(color) {
    return `ground-${color.slice(2)}`;
}

/**
 * A chart is made anew when this text changes, else only its data is.
 * @param {ChartProps} props
 */
function structureOf({ series, logX, logY, fromZero, look, height, xLabel }) {
    const lines = series.map((each) => [each.label, each.color, each.faint, each.points, each.filled, each.edges !== undefined]);
    return JSON.stringify([lines, logX, logY, fromZero, look, height, xLabel]);
}

/**
 * @param {ChartProps} props
 */
function chartLabel({ title, series, formatY }) {
    const values = series
        .filter((each) => !each.faint && each.y.length > 0)
        .map((each) => `${each.label}: ${formatY(/** @type {number} */ (each.y.at(-1) ?? 0))}`);
    return `${title}. ${values.join(", ")}. ${t("chart.keys")}`;
}

/**
 * uPlot's data: one x for all series, values at places where a series has none are undefined.
 * @param {ChartSeries[]} series
 * @returns {uPlot.AlignedData}
 */
function alignedData(series) {
    if (series.length === 0) return [[]];
    return uPlot.join(series.map((each) => /** @type {uPlot.AlignedData} */ ([each.x, each.y])));
}

/** @param {ChartSeries[]} series */
function lastX(series) {
    return Math.max(...series.map((each) => each.x.at(-1) ?? -Infinity));
}

/**
 * The value of a series at `x`, or at the place before it.
 * @param {ChartSeries} series
 * @param {number} x
 */
function valueAt({ x: places, y }, x) {
    let [low, high] = [0, places.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (/** @type {number} */ (places[middle]) <= x) low = middle + 1;
        else high = middle;
    }
    return low === 0 ? null : (y[low - 1] ?? null);
}

/**
 * @param {{ current: ChartProps }} latest
 * @param {HTMLElement} holder
 * @param {number} height
 * @param {(x: number | null) => void} setCursor
 */
function makePlot(latest, holder, height, setCursor) {
    const props = latest.current;
    const names = ["--ink-3", "--line", "--ink-2", ...props.series.map((each) => each.color)];
    const colors = readColors(names);
    /** @type {uPlot.Options} */
    const options = {
        width: holder.clientWidth,
        height,
        legend: { show: false },
        padding: [14, 28, 0, 0],
        scales: {
            x: { time: false, distr: props.logX ? 3 : 1, range: (_plot, least, most) => [props.logX ? wholeMultiple(least) : least, most] },
            y: { distr: props.logY ? 3 : 1, ...(props.fromZero && !props.logY ? { range: rangeFromZero } : {}) },
        },
        cursor: {
            y: false,
            points: { size: 7 },
            drag: { x: props.onZoom !== undefined, y: false, setScale: false },
            bind: { dblclick: () => () => latest.current.onZoom?.(null) || null },
            ...(props.group === undefined ? {} : { sync: { key: props.group, scales: ["x", null] } }),
        },
        axes: [
            { ...makeAxis(colors, props.logX, (value, increment) => latest.current.formatX(value, increment)), size: 30 },
            {
                ...makeAxis(colors, props.logY, (value, increment) =>
                    (latest.current.formatTick ?? latest.current.formatY)(value, increment)),
                size: (_plot, values) => 20 + 7 * Math.max(4, ...(values ?? []).map((text) => text?.length ?? 0)),
                ...(props.binary ? { incrs: POWERS_OF_2 } : {}),
            },
        ],
        series: [{}, ...props.series.map((each) => makeSeries(each, /** @type {string} */ (colors[each.color])))],
        hooks: {
            setCursor: [(plot) => setCursor(cursorX(plot))],
            setSelect: [(plot) => zoomToSelection(plot, latest.current)],
            draw: [(plot) => drawMarks(plot, latest.current.marks ?? [])],
            ready: [(plot) => bindTouch(plot)],
        },
    };
    const plot = new uPlot(options, alignedData(props.series), holder);
    showZoom(plot, props);
    return plot;
}

/**
 * @param {uPlot} _plot
 * @param {number} _least
 * @param {number} most
 * @returns {[number, number]}
 */
function rangeFromZero(_plot, _least, most) {
    return [0, (most || 1) * 1.05];
}

/**
 * @param {Record<string, string>} colors
 * @param {boolean | undefined} log
 * @param {(value: number, increment?: number) => string} format
 * @returns {uPlot.Axis}
 */
function makeAxis(colors, log, format) {
    return {
        stroke: colors["--ink-3"] ?? "",
        font: "12px system-ui, sans-serif",
        grid: { stroke: colors["--line"] ?? "", width: 1, ...(log ? { filter: wholePowers } : {}) },
        ticks: { show: false },
        gap: 8,
        ...(log ? { filter: wholePowers } : {}),
        values: (_plot, splits, _axis, _space, increment) =>
            splits.map((value) => (value === null ? "" : format(value, log ? undefined : increment))),
    };
}

/**
 * The largest multiple of a power of 10, such as 4000 for 4096, that is not above `value`; lines are counted from it.
 * @param {number} value
 */
function wholeMultiple(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return Math.floor(value / power) * power;
}

/**
 * The lines of a logarithmic axis at powers of 10, and at 2 and 5 between them where there are few.
 * @param {uPlot} _plot
 * @param {number[]} splits
 */
function wholePowers(_plot, splits) {
    const shown = splits.length > 20 ? /^1e/ : /^[125]e/;
    return splits.map((value) => (value !== null && shown.test(value.toExponential(0)) ? value : null));
}

/**
 * @param {ChartSeries} series
 * @param {string} color
 * @returns {uPlot.Series}
 */
function makeSeries(series, color) {
    const bars = series.edges !== undefined;
    return {
        label: series.label,
        stroke: series.faint ? withAlpha(color, 0.28) : color,
        width: bars ? 0 : series.faint ? 1 : 2,
        spanGaps: true,
        points: { show: series.points ?? false, size: 6, fill: color, stroke: color },
        ...(series.filled ? { fill: withAlpha(color, 0.09) } : {}),
        ...(bars ? { fill: withAlpha(color, 0.75), paths: (plot, place) => barPaths(plot, place, series.edges ?? []) } : {}),
    };
}

/**
 * The bars of a histogram, as wide as their bins.
 * @param {uPlot} plot
 * @param {number} place of the series
 * @param {number[]} edges
 * @returns {uPlot.Series.Paths}
 */
function barPaths(plot, place, edges) {
    const path = new Path2D();
    const floor = plot.valToPos(0, "y", true);
    const gap = devicePixelRatio || 1;
    for (const [k, count] of (plot.data[place] ?? []).entries()) {
        const [from, to] = [edges[k], edges[k + 1]];
        if (count === null || count === undefined || from === undefined || to === undefined) continue;
        const left = plot.valToPos(from, "x", true);
        const width = Math.max(gap, plot.valToPos(to, "x", true) - left - gap);
        const top = plot.valToPos(count, "y", true);
        path.rect(left, top, width, floor - top);
    }
    return { stroke: null, fill: path };
}

/**
 * @param {string} color as `rgb(r, g, b)`
 * @param {number} alpha
 */
function withAlpha(color, alpha) {
    return color.startsWith("rgb(") ? color.replace("rgb(", "rgba(").replace(")", `, ${alpha})`) : color;
}

/** @param {uPlot} plot */
function cursorX(plot) {
    const left = plot.cursor.left ?? -1;
    if (left < 0) return null;
    const place = plot.cursor.idx;
    return place === null || place === undefined ? null : (plot.data[0][place] ?? null);
}

/**
 * @param {uPlot} plot
 * @param {ChartProps} props
 */
function showZoom(plot, { zoom, series }) {
    const places = series.flatMap(({ x, edges }) => (x.length === 0 ? [] : [x[0], (edges ?? x).at(-1)]));
    const numbers = /** @type {number[]} */ (places);
    if (zoom) plot.setScale("x", { min: zoom[0], max: zoom[1] });
    else if (numbers.length > 0) plot.setScale("x", fullRange(numbers));
    else plot.redraw();
}

/** @param {number[]} places */
function fullRange(places) {
    const [min, max] = [Math.min(...places), Math.max(...places)];
    return min === max ? { min: min - 1, max: max + 1 } : { min, max };
}

/**
 * @param {uPlot} plot
 * @param {ChartProps} props
 */
function zoomToSelection(plot, { onZoom }) {
    const { left, width } = plot.select;
    if (width < 4 || onZoom === undefined) return;
    const range = /** @type {Range} */ ([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    onZoom(range);
}

/**
 * Arrow keys move the cursor, with Shift the range; + and - zoom around the cursor; 0 and Escape show all.
 * @param {uPlot} plot
 * @param {ChartProps} props
 * @param {KeyboardEvent} event
 */
function pressKey(plot, props, event) {
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

/**
 * A finger that moves across the chart moves the cursor.
 * @param {uPlot} plot
 */
function bindTouch(plot) {
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

/**
 * Marks as lines with a sign at the top; a saved model is only a sign at the bottom.
 * @param {uPlot} plot
 * @param {ChartMark[]} marks
 */
function drawMarks(plot, marks) {
    if (marks.length === 0) return;
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio || 1;
    const colors = readColors([...new Set(marks.map((mark) => mark.color))]);
    ctx.save();
    ctx.textAlign = "center";
    for (const mark of marks) {
        const x = plot.valToPos(mark.x, "x", true);
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        const color = colors[mark.color] ?? "";
        const quiet = mark.kind === "save";
        ctx.fillStyle = ctx.strokeStyle = color;
        if (!quiet) drawLine(ctx, x, bbox, scale);
        ctx.font = `${(quiet ? 7 : 11) * scale}px system-ui, sans-serif`;
        ctx.fillText(MARK_SIGNS[mark.kind] ?? "", x, quiet ? bbox.top + bbox.height - 2 * scale : bbox.top - 3 * scale);
    }
    ctx.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {uPlot.BBox} box
 * @param {number} scale
 */
function drawLine(context, x, box, scale) {
    context.lineWidth = scale;
    context.setLineDash([4 * scale, 3 * scale]);
    context.beginPath();
    context.moveTo(x, box.top);
    context.lineTo(x, box.top + box.height);
    context.stroke();
}

/** The sign that marks of a kind have in charts. @param {string} kind */
export function markSign(kind) {
    return MARK_SIGNS[kind] ?? "";
}
