/**
 * Charts by uPlot: zoom by dragging, by keys and by touch, values under the cursor, marks along the axis.
 *
 * Colours are names of custom properties such as `--series-1`, so that a chart follows the theme.
 */
import { alignedData, makePlot, showZoom } from "./chart_plot.js";
import { pressKey } from "./chart_zoom.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { listOf, sentencesOf, t } from "./language.js";

/** @typedef {import("../vendor/uplot/uPlot.js").default} uPlot */

/**
 * @typedef {object} ChartSeries
 * @property {string} label
 * @property {string} color name of a custom property
 * @property {number[]} x increasing
 * @property {(number | null)[]} y
 * @property {boolean} [faint] drawn thin behind the others, and not named
 * @property {boolean} [filled] the ground below the curve is tinted
 * @property {boolean} [points] each value has a point
 * @property {string} [rest] stands in place of the last value while the cursor is elsewhere: a loss that is no number
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
                ${(cursor !== null || !props.quiet) && named.map((each) => html`<${ChartValue} key=${each.label} series=${each} x=${at} format=${formatY} resting=${cursor === null} alone=${named.length === 1 && !props.quiet} />`)}
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
 * @param {{ series: ChartSeries, x: number, format: (value: number) => string, resting: boolean, alone: boolean }} props
 */
function ChartValue({ series, x, format, resting, alone }) {
    const value = valueAt(series, x);
    const text = resting && series.rest ? series.rest : value === null ? "\u2013" : format(value);
    return html`<span class="chart-value">
        ${!alone && html`<span class=${`swatch ${swatchClass(series.color)}`} aria-hidden="true"></span>
            <span class="chart-value-name">${series.label}</span>`}
        <span class="chart-value-number">${text}</span>
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
        .map((each) => t("chart.last", { name: each.label, value: each.rest ?? formatY(/** @type {number} */ (each.y.at(-1) ?? 0)) }));
    return sentencesOf([title, listOf(values), t("chart.keys")]);
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
