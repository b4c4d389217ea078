/** Samples of evaluations, side by side along the time line: one sees the language appear. */
import { get } from "../parts/api.js";
import { Segmented } from "../parts/controls.js";
import { html, useMemo, useState } from "../parts/html.js";
import { formatFixed, t } from "../parts/language.js";
import { useLoaded } from "../parts/loading.js";
import { changeState, numberParam, wordParam } from "../parts/route.js";
import { spread } from "../parts/series.js";
import { ErrorLine } from "../parts/states.js";

/** @typedef {import("./runs_data.js").ShownRun} ShownRun */
/** @typedef {import("../parts/types.js").Sample} Sample */
/** @typedef {{ steps: number[], samples: Sample[] }} Answer */

const NUM_COLUMNS = 6;
const MOST_OF_A_STEP = 8;
/** Characters of a sample that are shown at first: a long text without spaces takes the browser seconds to lay out. */
const SHOWN_CHARACTERS = 2000;
const MODES = /** @type {const} */ (["overview", "row"]);

/**
 * @param {{ runs: ShownRun[], params: URLSearchParams }} props
 */
export function SampleLine({ runs, params }) {
    const withSamples = runs.filter(({ run, metrics }) => metrics !== null && run?.has_samples);
    const run = runs.find(({ id, metrics }) => metrics !== null && id === params.get("samples")) ?? withSamples[0];
    if (run === undefined || withSamples.length === 0) return null;
    return html`<${SamplesOfRun} key=${run.id} run=${run} runs=${runs} params=${params} />`;
}

/**
 * @param {{ run: ShownRun, runs: ShownRun[], params: URLSearchParams }} props
 */
function SamplesOfRun({ run, runs, params }) {
    const { id, numSamples } = run;
    const known = useLoaded((signal) => get("samples", { id, limit: 1 }, signal), [id, numSamples]);
    const steps = /** @type {Answer | null} */ (known.data)?.steps ?? noSteps;
    const mode = wordParam(params, "row", MODES);
    const last = Math.max(0, steps.length - NUM_COLUMNS);
    const place = Math.min(last, numberParam(params, "at", last, 0, Infinity));
    const seen = useMemo(() => (mode === "overview" ? spread(steps, NUM_COLUMNS) : steps.slice(place, place + NUM_COLUMNS)), [steps, mode, place]);
    const { data, problem } = useLoaded(seen.length > 0 ? (signal) => askSteps(id, seen, signal) : null, [id, seen.join(" ")], { waitMs: 60 });
    return html`<section class="stack" aria-labelledby="samples-title">
        <div class="section-head">
            <h2 id="samples-title">${t("samples.title")}</h2>
            <${SampleTools} run=${run} runs=${runs} mode=${mode} />
        </div>
        <${ErrorLine} problem=${known.problem ?? problem} />
        ${known.data !== null && steps.length === 0
            ? html`<p class="hint" role="status">${t("samples.none")}</p>`
            : html`<${StepLine} steps=${steps} seen=${seen} mode=${mode} place=${place} last=${last} />
                <div class="samples" tabIndex=${0} role="group" aria-label=${t("samples.title")}>
                    ${(data ?? []).map((group) => html`<${SampleColumn} key=${group.step} group=${group} />`)}
                </div>`}
    </section>`;
}

/** @type {number[]} */
const noSteps = [];

/**
 * @typedef {{ step: number, samples: Sample[] }} SampleGroup
 */

/**
 * @param {string} id
 * @param {number[]} steps
 * @param {AbortSignal} signal
 * @returns {Promise<SampleGroup[]>}
 */
function askSteps(id, steps, signal) {
    return Promise.all(steps.map(async (step) => {
        const answer = /** @type {Answer} */ (await get("samples", { id, from_step: step, limit: MOST_OF_A_STEP, steps: "false" }, signal));
        return { step, samples: answer.samples.filter((sample) => sample.step === step) };
    }));
}

/**
 * @param {{ run: ShownRun, runs: ShownRun[], mode: typeof MODES[number] }} props
 */
function SampleTools({ run, runs, mode }) {
    return html`<div class="tools">
        ${runs.length > 1 && html`<${Segmented}
            label=${t("samples.of_run")}
            hideLabel=${true}
            value=${run.id}
            options=${runs.map(({ id, name }) => ({ value: id, label: name }))}
            onChange=${(/** @type {string} */ id) => changeState({ samples: id, at: null })}
        />`}
        <${Segmented}
            label=${t("samples.mode")}
            hideLabel=${true}
            value=${mode}
            options=${[{ value: "overview", label: t("samples.overview") }, { value: "row", label: t("samples.row") }]}
            onChange=${(/** @type {string} */ next) => changeState({ row: next === "overview" ? null : next, at: null })}
        />
    </div>`;
}

/**
 * The time line: a point for each evaluation with samples, those that are seen filled; a slider moves along it.
 * @param {{ steps: number[], seen: number[], mode: string, place: number, last: number }} props
 */
function StepLine({ steps, seen, mode, place, last }) {
    const end = steps.at(-1) || 1;
    const shown = new Set(seen);
    return html`<div class="step-line">
        <svg class="step-points" aria-hidden="true">
            <line x1="0" x2="100%" y1="12" y2="12" />
            ${spread(steps, 200).map((step) => html`<circle key=${step} cx=${`${1 + (98 * step) / end}%`} cy="12" r="3" />`)}
            ${seen.map((step) => html`<circle key=${`seen ${step}`} class="step-seen" cx=${`${1 + (98 * step) / end}%`} cy="12" r="5" />`)}
        </svg>
        ${mode === "row" && last > 0 && html`<label class="step-slider">
            <span class="visually-hidden">${t("samples.along")}</span>
            <input
                type="range"
                min="0"
                max=${last}
                step="1"
                value=${place}
                aria-valuetext=${t("samples.step", { step: steps[place] ?? 0 })}
                onInput=${(/** @type {any} */ event) => changeState({ at: event.currentTarget.value })}
            />
        </label>`}
        <p class="hint">${t("samples.seen", { seen: shown.size, count: steps.length })}</p>
    </div>`;
}

/**
 * @param {{ group: SampleGroup }} props
 */
function SampleColumn({ group }) {
    const loss = group.samples[0]?.validation_loss ?? null;
    return html`<article class="card sample">
        <header>
            <h3>${t("samples.step", { step: group.step })}</h3>
            ${loss !== null && html`<span class="sample-loss">${t("samples.loss", { loss: formatFixed(loss, 3) })}</span>`}
        </header>
        ${group.samples.map((sample, place) => html`<p key=${place} class="prose"><${SampleText} sample=${sample} /></p>`)}
    </article>`;
}

/** @param {{ sample: Sample }} props */
function SampleText({ sample: { prompt, text } }) {
    const [whole, setWhole] = useState(false);
    const begins = prompt !== "" && text.startsWith(prompt);
    const rest = begins ? text.slice(prompt.length) : text;
    const limit = whole ? Infinity : SHOWN_CHARACTERS;
    const cut = prompt.length > limit || rest.length > limit;
    return html`<span class="sample-prompt">${prompt.slice(0, limit)}</span>${rest.slice(0, limit)}
        ${cut && html` <button type="button" class="button button-quiet" onClick=${() => setWhole(true)}>
            ${t("samples.show_all", { count: prompt.length + rest.length })}
        </button>`}`;
}
