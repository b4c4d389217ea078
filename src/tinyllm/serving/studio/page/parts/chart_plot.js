/** The plot of a chart: uPlot with the page's axes, curves, bars and marks. */
import uPlot from "../vendor/uplot/uPlot.js";
import { edgeValues, isNarrow, logLines, spacedLabels, valueRange, wholeMultiple } from "./chart_range.js";
import { bindTouch, cursorX, zoomToSelection } from "./chart_zoom.js";
import { readColors } from "./theme.js";

/** @typedef {import("./charts.js").ChartProps} ChartProps */
/** @typedef {import("./charts.js").ChartSeries} ChartSeries */
/** @typedef {import("./charts.js").ChartMark} ChartMark */

const POWERS_OF_2 = Array.from({ length: 50 }, (_, power) => 2 ** power);
/** In pixels: a sign, a digit of an axis, and what stands beside the curves. */
const [SIGN_WIDTH, DIGIT_WIDTH, SIDES] = [12, 6.5, 90];
const MARK_SIGNS = /** @type {Record<string, string>} */ ({ resume: "\u25b6", skip: "\u00d7", save: "\u25cf", stop: "\u25a0" });

/**
 * uPlot's data: one x for all series, values at places where a series has none are undefined.
 * @param {ChartSeries[]} series
 * @returns {uPlot.AlignedData}
 */
export function alignedData(series) {
    if (series.length === 0) return [[]];
    return uPlot.join(series.map((each) => /** @type {uPlot.AlignedData} */ ([each.x, each.y])));
}

/**
 * @param {{ current: ChartProps }} latest
 * @param {HTMLElement} holder
 * @param {number} height
 * @param {(x: number | null) => void} setCursor
 */
export function makePlot(latest, holder, height, setCursor) {
    const props = latest.current;
    const names = ["--ink-3", "--line", "--ink-2", ...props.series.map((each) => each.color)];
    const colors = readColors(names);
    /** @type {[number, number]} the range of x that is about to be shown */
    let shown = [0, 0];
    /** @type {uPlot.Options} */
    const options = {
        width: holder.clientWidth,
        height,
        legend: { show: false },
        padding: [14, 28, 0, 0],
        scales: {
            x: {
                time: false,
                distr: props.logX ? 3 : 1,
                range: (_plot, least, most) => (shown = [props.logX ? wholeMultiple(least) : least, most]),
            },
            y: {
                distr: props.logY ? 3 : 1,
                range: (plot, least, most) => valueRange([least, most, ...edgeValues(plot.data, shown, props)], props),
            },
        },
        cursor: {
            y: false,
            points: { size: 7 },
            drag: { x: props.onZoom !== undefined, y: false, setScale: false },
            bind: { dblclick: () => () => latest.current.onZoom?.(null) || null },
            ...(props.group === undefined ? {} : { sync: { key: props.group, scales: ["x", null] } }),
        },
        axes: [
            { ...makeAxis(colors, props.logX, false, (value, increment) => latest.current.formatX(value, increment)), size: 30 },
            {
                ...makeAxis(colors, props.logY, props.binary, (value, increment) =>
                    (latest.current.formatTick ?? latest.current.formatY)(value, increment)),
                size: (_plot, values) => 20 + 7 * Math.max(4, ...(values ?? []).map((text) => text?.length ?? 0)),
                ...(props.binary && !props.logY ? { incrs: POWERS_OF_2 } : {}),
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
 * @param {Record<string, string>} colors
 * @param {boolean | undefined} log
 * @param {boolean | undefined} binary
 * @param {(value: number, increment?: number) => string} format
 * @returns {uPlot.Axis}
 */
function makeAxis(colors, log, binary, format) {
    const filter = binary ? sparsePowers : wholePowers;
    return {
        stroke: colors["--ink-3"] ?? "",
        font: "12px system-ui, sans-serif",
        grid: { stroke: colors["--line"] ?? "", width: 1, ...(log ? { filter } : {}) },
        ticks: { show: false },
        gap: 8,
        ...(log ? { filter, splits: (_plot, _axis, least, most) => logLines(least, most, binary) } : {}),
        values: (plot, splits, axis, _space, increment) => {
            const known = splits.filter((value) => value !== null);
            const narrow = isNarrow(Number(known[0]), Number(known.at(-1)));
            const step = log ? (narrow && known.length > 1 ? Number(known[1]) - Number(known[0]) : undefined) : increment;
            const labels = splits.map((value) => (value === null ? "" : format(value, step)));
            return axis === 0 ? spacedLabels(labels, splits.map((value) => placeOf(plot, value, log)), DIGIT_WIDTH) : labels;
        },
    };
}

/**
 * The place of a value on the horizontal axis, in pixels; the plot may not be laid out yet.
 * @param {uPlot} plot
 * @param {number | null} value
 * @param {boolean | undefined} log
 */
function placeOf(plot, value, log) {
    const { min, max } = plot.scales["x"] ?? {};
    if (value === null || typeof min !== "number" || typeof max !== "number") return 0;
    const [at, low, high] = /** @type {[number, number, number]} */ (log ? [value, min, max].map(Math.log) : [value, min, max]);
    return ((at - low) / (high - low)) * (plot.width - SIDES);
}

/**
 * Powers of 2 of a logarithmic axis, every second one where there are many.
 * @param {uPlot} _plot
 * @param {number[]} splits
 */
function sparsePowers(_plot, splits) {
    const each = Math.ceil(splits.length / 8);
    return splits.map((value, place) => (place % each === 0 ? value : null));
}

/**
 * The lines of a logarithmic axis at powers of 10, and at 2 and 5 between them where there are few.
 * @param {uPlot} _plot
 * @param {number[]} splits
 */
function wholePowers(_plot, splits) {
    if (isNarrow(splits[0] ?? 1, splits.at(-1) ?? 10)) return splits;
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
        // A line needs two values: a single one is a point.
        points: { show: (plot, place) => series.points || isSingle(plot.data[place] ?? []), size: 6, fill: color, stroke: color },
        ...(series.filled ? { fill: withAlpha(color, 0.09) } : {}),
        ...(bars ? { fill: withAlpha(color, 0.75), paths: (plot, place) => barPaths(plot, place, series.edges ?? []) } : {}),
    };
}

/** @param {ArrayLike<number | null | undefined>} values */
function isSingle(values) {
    let count = 0;
    for (let place = 0; place < values.length && count < 2; place++) if (values[place] !== null && values[place] !== undefined) count++;
    return count === 1;
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

/**
 * @param {uPlot} plot
 * @param {ChartProps} props
 */
export function showZoom(plot, { zoom, series }) {
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
    const shifts = signShifts(marks);
    for (const [place, mark] of marks.entries()) {
        const x = plot.valToPos(mark.x, "x", true);
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        const color = colors[mark.color] ?? "";
        const quiet = mark.kind === "save";
        ctx.fillStyle = ctx.strokeStyle = color;
        if (!quiet) drawLine(ctx, x, bbox, scale);
        ctx.font = `${(quiet ? 7 : 11) * scale}px system-ui, sans-serif`;
        ctx.fillText(MARK_SIGNS[mark.kind] ?? "", x + (shifts[place] ?? 0) * SIGN_WIDTH * scale, quiet ? bbox.top + bbox.height - 2 * scale : bbox.top - 3 * scale);
    }
    ctx.restore();
}

/**
 * How far each sign stands from its line, in widths of a sign: a run that stops and goes on has both at one place.
 * @param {ChartMark[]} marks
 */
export function signShifts(marks) {
    const keys = marks.map(({ x, kind, color }) => (kind === "save" ? "" : `${x} ${color}`));
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
    /** @type {Map<string, number>} */
    const seen = new Map();
    return keys.map((key) => {
        const number = seen.get(key) ?? 0;
        seen.set(key, number + 1);
        return key === "" ? 0 : number - ((counts.get(key) ?? 1) - 1) / 2;
    });
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
