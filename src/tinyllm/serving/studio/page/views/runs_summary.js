/** A card for each run that is shown: state, progress, time left and the newest measurements. */
import { swatchClass } from "../parts/charts.js";
import { html } from "../parts/html.js";
import { formatCompact, formatDuration, formatFixed, formatPercent, listOf, t } from "../parts/language.js";
import { isLost, lastValue, NOT_A_NUMBER } from "../parts/series.js";
import { Progress, stateText, stepText } from "./runs_list.js";

/** @typedef {import("./runs_data.js").ShownRun} ShownRun */

/** @param {{ runs: ShownRun[] }} props */
export function RunSummaries({ runs }) {
    return html`<div class=${`summaries${runs.length > 1 ? " summaries-many" : ""}`}>
        ${runs.map((shown) => html`<${RunSummaryCard} key=${shown.id} shown=${shown} />`)}
    </div>`;
}

/** @param {{ shown: ShownRun }} props */
function RunSummaryCard({ shown }) {
    const { run, name, color } = shown;
    if (run === null) return null;
    const share = run.num_steps ? Math.min(1, run.step / run.num_steps) : 0;
    return html`<article class="card summary">
        <header class="summary-head">
            <h2><span class=${`swatch swatch-large ${swatchClass(color)}`} aria-hidden="true"></span>${name}</h2>
            <span class=${`state state-${run.state}`}>${stateText(run.state)}</span>
            <span class="summary-step">${listOf([stepText(run), run.num_steps !== null && run.num_steps > 0 && formatPercent(share)])}</span>
            ${run.seconds_left !== null && html`<span class="summary-left">${t("runs.left", { time: formatDuration(run.seconds_left) })}</span>`}
        </header>
        <${Progress} share=${share} running=${run.state === "running"} />
        ${run.problem && html`<p class="error-line">${run.problem}</p>`}
        <dl class="facts">${summaryFacts(shown).map(([label, value]) => html`<div key=${label}>
            <dt>${label}</dt><dd>${value ?? "\u2013"}</dd>
        </div>`)}</dl>
    </article>`;
}

/**
 * The last value of a loss, which may be no number; null without any.
 * @param {import("../parts/types.js").Column | undefined} column
 */
function lossText(column) {
    if (column === undefined) return null;
    if (isLost(column)) return NOT_A_NUMBER;
    const last = lastValue(column);
    return last === null ? null : formatFixed(last, 3);
}

/**
 * @param {ShownRun} shown
 * @returns {[string, string | null][]}
 */
function summaryFacts({ run, metrics }) {
    const { training, evaluation } = metrics ?? {};
    const hasBits = evaluation !== undefined && lastValue(evaluation.bits_per_byte) !== null; // not of every objective
    const rate = training && lastValue(training.tokens_per_second);
    const tokens = training && lastValue(training.tokens);
    const parameters = run?.parameters;
    return [
        [t("chart.loss"), lossText(training?.loss)],
        [t("chart.validation_loss"), lossText(evaluation?.validation_loss)],
        [t("chart.bits_per_byte"), hasBits ? lossText(evaluation?.bits_per_byte) : null],
        [t("chart.tokens_per_second"), rate === null || rate === undefined ? null : formatCompact(rate)],
        [t("runs.tokens"), tokens === null || tokens === undefined ? null : formatCompact(tokens)],
        [t("runs.parameters"), parameters === null || parameters === undefined ? null : formatCompact(parameters)],
    ];
}
