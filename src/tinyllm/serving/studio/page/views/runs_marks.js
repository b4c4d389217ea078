/** What happened to runs: stops, resumes, skipped updates and saved models, as marks of the charts and in words. */
import { markSign } from "../parts/chart_plot.js";
import { html } from "../parts/html.js";
import { t } from "../parts/language.js";
import { stepAt } from "../parts/series.js";

/** @typedef {import("./runs_data.js").ShownRun} ShownRun */

/**
 * The marks of a run on an axis.
 * @param {ShownRun} run
 * @param {"step" | "tokens" | "seconds"} axis
 * @returns {import("../parts/charts.js").ChartMark[]}
 */
export function runMarks({ run, metrics, color }, axis) {
    const training = metrics?.training;
    if (!run || !training) return [];
    return run.marks.map(({ step, kind, text }) => ({
        x: axis === "step" ? step : stepAt(training[axis], training.step, step),
        kind,
        color,
        text,
    }));
}

/** The marks in words, under the charts. @param {{ runs: ShownRun[] }} props */
export function MarkList({ runs }) {
    const marks = runs.flatMap(({ name, run }) => (run?.marks ?? []).map((mark) => ({ name, ...mark })));
    if (marks.length === 0) return null;
    const kinds = { resume: t("mark.resume"), skip: t("mark.skip"), save: t("mark.save"), stop: t("mark.stop") };
    return html`<details class="marks">
        <summary>${t("runs.marks", { count: marks.length })}</summary>
        <ul>${marks.map(({ name, step, kind, text }, place) => html`<li key=${place}>
            <span class="mark-sign" aria-hidden="true">${markSign(kind)}</span>
            ${runs.length > 1 && html`<strong>${name}</strong> `}
            ${t("mark.line", { kind: kinds[kind], step })}${text && html`<span class="mark-text">${markText(text)}</span>`}
        </li>`)}</ul>
    </details>`;
}

/**
 * The server's words of a mark in the page's language; the reason of a stop stays as the run wrote it.
 * @param {string} text
 */
function markText(text) {
    const key = /** @type {const} */ ({
        "skipped: loss or gradient not finite": "mark.not_finite", checkpoint: "mark.checkpoint", model: "mark.model",
    })[text];
    return key === undefined ? text : t(key);
}
