/** The curves of runs, over one another: the axis, smoothing and zoom hold for all charts. */
import { get } from "../parts/api.js";
import { zoomedRange } from "../parts/chart_zoom.js";
import { Chart } from "../parts/charts.js";
import { Button, Segmented, Slider, Toggle } from "../parts/controls.js";
import { html, useCallback, useMemo } from "../parts/html.js";
import { formatBytes, formatBytesTick, formatCompact, formatDuration, formatFixed, formatNumber, formatTick, t } from "../parts/language.js";
import { useLoaded } from "../parts/loading.js";
import { changeState, numberParam, wordParam } from "../parts/route.js";
import { drawablePoints, isLost, NOT_A_NUMBER, smooth, stepAt } from "../parts/series.js";
import { MarkList, runMarks } from "./runs_marks.js";

/** @typedef {import("./runs_data.js").ShownRun} ShownRun */
/** @typedef {import("../parts/charts.js").ChartSeries} ChartSeries */
/** @typedef {import("../parts/charts.js").Range} Range */
/** @typedef {"step" | "tokens" | "seconds"} AxisName */
/** @typedef {{ axis: AxisName, logX: boolean, logY: boolean, smoothing: number, zoom: Range | null }} View */
/** @typedef {Map<string, import("../parts/types.js").Metrics>} Details */

/**
 * @typedef {object} Measure
 * @property {"training" | "evaluation"} table
 * @property {string} name
 * @property {import("../parts/language.js").TextKey} title
 * @property {import("../parts/language.js").TextKey} note
 * @property {(value: number) => string} format
 * @property {(value: number, increment?: number) => string} [tick]
 * @property {boolean} [fromZero]
 * @property {boolean} [binary]
 */

const AXES = /** @type {const} */ (["step", "tokens", "seconds"]);
const DEFAULT_SMOOTHING = 0.6;
/** Times below this have a digit behind the point. */
const SHORT_SECONDS = 10;
const ZOOM_BUTTON = 0.5;
/** A range with fewer of the shown points than this is asked for in detail. */
const ENOUGH_POINTS = 400;

/** @type {Measure[]} */
const MEASURES = [
    { table: "training", name: "loss", title: "chart.loss", note: "chart.nats", format: (value) => formatFixed(value, 3), tick: formatTick },
    { table: "evaluation", name: "validation_loss", title: "chart.validation_loss", note: "chart.nats", format: (value) => formatFixed(value, 3), tick: formatTick },
    { table: "evaluation", name: "bits_per_byte", title: "chart.bits_per_byte", note: "chart.bits", format: (value) => formatFixed(value, 3), tick: formatTick },
    { table: "training", name: "learning_rate", title: "chart.learning_rate", note: "chart.per_step", format: formatNumber, tick: formatPower },
    { table: "training", name: "gradient_norm", title: "chart.gradient_norm", note: "chart.before_clip", format: (value) => formatFixed(value, 2), tick: formatTick },
    { table: "training", name: "tokens_per_second", title: "chart.tokens_per_second", note: "chart.tokens", format: formatCompact, tick: formatTick, fromZero: true },
    { table: "training", name: "memory_bytes", title: "chart.memory", note: "chart.process", format: formatBytes, tick: formatBytesTick, fromZero: true, binary: true },
];

/**
 * A small number in short, as 5e-4.
 * @param {number} value
 */
function formatPower(value) {
    return value === 0 ? "0" : Number(value.toPrecision(3)).toExponential();
}

/**
 * @param {{ runs: ShownRun[], params: URLSearchParams, look: string }} props
 */
export function RunCharts({ runs, params, look }) {
    const view = readView(params);
    const details = useDetails(runs, view);
    const onZoom = useCallback((/** @type {Range | null} */ zoom) => changeState({ zoom: zoom && zoom.map((end) => String(Number(end.toPrecision(7)))).join("_") }), []);
    if (runs.every((run) => run.metrics === null)) return null;
    const hasValues = runs.some(({ metrics }) => metrics && metrics.training.step.length + metrics.evaluation.step.length > 0);
    if (!hasValues) return html`<p class="hint" role="status">${t("runs.no_values")}</p>`;
    return html`<section class="stack" aria-labelledby="charts-title">
        <div class="section-head">
            <h2 id="charts-title">${t("runs.charts")}</h2>
            <${ChartTools} view=${view} runs=${runs} onZoom=${onZoom} />
        </div>
        <div class="charts">
            ${MEASURES.map((measure, place) => html`<${MeasureChart}
                key=${measure.name}
                measure=${measure}
                runs=${runs}
                details=${details}
                view=${view}
                look=${look}
                large=${place === 0}
                onZoom=${onZoom}
            />`)}
        </div>
        <${MarkList} runs=${runs} />
    </section>`;
}

/**
 * @param {URLSearchParams} params
 * @returns {View}
 */
function readView(params) {
    const ends = (params.get("zoom") ?? "").split("_").map(Number);
    const [low, high] = ends;
    const zoomed = ends.length === 2 && low !== undefined && high !== undefined && Number.isFinite(low) && low < high;
    return {
        axis: wordParam(params, "x", AXES),
        logX: params.get("logx") === "1",
        logY: params.get("logy") === "1",
        smoothing: numberParam(params, "smooth", DEFAULT_SMOOTHING, 0, 0.99),
        zoom: zoomed ? [low, high] : null,
    };
}

/**
 * @param {{ view: View, runs: ShownRun[], onZoom: (zoom: Range | null) => void }} props
 */
function ChartTools({ view, runs, onZoom }) {
    const axes = { step: t("axis.step"), tokens: t("axis.tokens"), seconds: t("axis.time") };
    /** @param {number} factor */
    const zoom = (factor) => {
        const whole = wholeRange(runs, view);
        onZoom(zoomedRange(view.zoom ?? whole, whole, null, factor));
    };
    return html`<div class="tools">
        <${Segmented}
            label=${t("axis.label")}
            hideLabel=${true}
            value=${view.axis}
            options=${AXES.map((value) => ({ value, label: axes[value] }))}
            onChange=${(/** @type {AxisName} */ axis) => changeState({ x: axis === "step" ? null : axis, zoom: null })}
        />
        <${Toggle} label=${t("axis.log_x")} checked=${view.logX} onChange=${(/** @type {boolean} */ on) => changeState({ logx: on ? "1" : null })} />
        <${Toggle} label=${t("axis.log_y")} checked=${view.logY} onChange=${(/** @type {boolean} */ on) => changeState({ logy: on ? "1" : null })} />
        <${Slider}
            label=${t("runs.smoothing")}
            value=${view.smoothing}
            min=${0}
            max=${0.99}
            step=${0.01}
            text=${formatFixed(view.smoothing, 2)}
            onInput=${(/** @type {number} */ value) => changeState({ smooth: value === DEFAULT_SMOOTHING ? null : String(value) })}
        />
        <div class="button-row">
            <${Button} label=${t("zoom.in")} onClick=${() => zoom(ZOOM_BUTTON)}>+<//>
            <${Button} label=${t("zoom.out")} onClick=${() => zoom(1 / ZOOM_BUTTON)} disabled=${view.zoom === null}>−<//>
            <${Button} onClick=${() => onZoom(null)} disabled=${view.zoom === null}>${t("zoom.all")}<//>
        </div>
    </div>`;
}

/**
 * @param {ShownRun[]} runs
 * @param {View} view
 * @returns {Range}
 */
function wholeRange(runs, { axis, logX }) {
    const places = runs.flatMap((run) => (run.metrics?.training[axis] ?? []).filter((at) => at !== null && (!logX || at > 0)));
    const numbers = /** @type {number[]} */ (places);
    return numbers.reduce((range, at) => [Math.min(range[0], at), Math.max(range[1], at)], /** @type {Range} */ ([Infinity, -Infinity]));
}

/**
 * The metrics of the zoomed range in detail, by run, where few of the shown points lie in it.
 * @param {ShownRun[]} runs
 * @param {View} view
 * @returns {Details}
 */
function useDetails(runs, { axis, zoom }) {
    const wanted = zoom === null ? [] : runs.flatMap((run) => wantedSteps(run, axis, zoom));
    const ask = async (/** @type {AbortSignal} */ signal) =>
        new Map(await Promise.all(wanted.map(async ({ id, from, to }) => {
            const metrics = await get("metrics", { id, points: 1500, from_step: from, to_step: to }, signal);
            return /** @type {[string, import("../parts/types.js").Metrics]} */ ([id, metrics]);
        })));
    const inputs = wanted.map(({ id, from, to }) => `${id} ${from} ${to}`).join("\n");
    const { data } = useLoaded(wanted.length > 0 ? ask : null, [inputs], { waitMs: 150 });
    return data ?? noDetails;
}

/** @type {Details} */
const noDetails = new Map();

/**
 * @param {ShownRun} run
 * @param {AxisName} axis
 * @param {Range} zoom
 */
function wantedSteps({ id, metrics }, axis, [low, high]) {
    const training = metrics?.training;
    if (!training || metrics.num_lines <= training.step.length + metrics.evaluation.step.length) return [];
    const places = training[axis];
    const seen = places.filter((at) => at !== null && at >= low && at <= high).length;
    if (seen >= ENOUGH_POINTS) return [];
    const from = Math.max(0, Math.floor(stepAt(training.step, places, low)));
    return [{ id, from, to: Math.ceil(stepAt(training.step, places, high)) }];
}

/**
 * @param {{ measure: Measure, runs: ShownRun[], details: Details, view: View, look: string, large: boolean,
 *     onZoom: (zoom: Range | null) => void }} props
 */
function MeasureChart({ measure, runs, details, view, look, large, onZoom }) {
    const { axis, logX, logY, smoothing, zoom } = view;
    const data = runs.map((run) => details.get(run.id) ?? run.metrics);
    const names = runs.map((run) => `${run.name}\t${run.color}`).join("\n");
    const series = useMemo(() => runs.flatMap((run, place) => measureSeries(measure, run, data[place] ?? null, view, runs.length === 1)), [
        ...fixedLength(data), names, axis, logX, logY, smoothing,
    ]);
    const formatX = axisFormat(axis);
    const marks = useMemo(() => runs.flatMap((run) => runMarks(run, axis)), [...fixedLength(runs.map((run) => run.run)), names, axis]);
    if (series.every((each) => each.x.length === 0)) return null;
    return html`<div class=${`card chart-card${large ? " chart-large" : ""}`}>
        <${Chart}
            title=${t(measure.title)}
            note=${t(measure.note)}
            series=${series}
            formatX=${formatX}
            formatY=${measure.format}
            formatTick=${measure.tick}
            fromZero=${measure.fromZero}
            binary=${measure.binary}
            nameX=${(/** @type {number} */ x) => `${t(`axis.${axis === "seconds" ? "time" : axis}`)} ${axis === "seconds" ? formatDuration(x) : formatNumber(x)}`}
            xLabel=${axis}
            logX=${logX}
            logY=${logY}
            zoom=${zoom}
            onZoom=${onZoom}
            marks=${large || measure.table === "evaluation" ? marks : noMarks}
            group="runs"
            height=${large ? 300 : 180}
            look=${look}
        />
    </div>`;
}

/** @type {import("../parts/charts.js").ChartMark[]} */
const noMarks = [];

/**
 * Hooks want lists of inputs that keep their length; there are at most 8 runs.
 * @template T
 * @param {T[]} values
 */
function fixedLength(values) {
    return Array.from({ length: 8 }, (_, place) => values[place] ?? null);
}

/** @param {AxisName} axis */
function axisFormat(axis) {
    if (axis !== "seconds") return formatTick;
    return (/** @type {number} */ value) =>
        value < SHORT_SECONDS ? t("time.seconds", { seconds: Number(value.toPrecision(2)) }) : formatDuration(value);
}

/**
 * The curve of a run; a smoothed one has the measured values behind it.
 * @param {Measure} measure
 * @param {ShownRun} run
 * @param {import("../parts/types.js").Metrics | null} metrics
 * @param {View} view
 * @param {boolean} filled
 * @returns {ChartSeries[]}
 */
function measureSeries({ table, name }, run, metrics, { axis, logX, logY, smoothing }, filled) {
    const columns = /** @type {Record<string, import("../parts/types.js").Column> | undefined} */ (metrics?.[table]);
    const [x, y] = drawablePoints(columns?.[axis] ?? [], columns?.[name] ?? [], { logX, logY });
    const rest = name.endsWith("loss") && isLost(columns?.[name] ?? []) ? NOT_A_NUMBER : undefined;
    const base = { label: run.name, color: run.color, x, filled, rest };
    if (table === "evaluation") return [{ ...base, y, points: x.length <= 60 }];
    const smoothed = smoothing > 0 && name !== "learning_rate" && name !== "memory_bytes";
    if (!smoothed) return [{ ...base, y }];
    return [{ ...base, y, faint: true, filled: false }, { ...base, y: smooth(y, smoothing) }];
}
