/** The list of runs, from which those are chosen that the view shows. Arrow keys go through the list. */
import { swatchClass } from "../parts/charts.js";
import { html, useRef, useState } from "../parts/html.js";
import { formatFixed, formatTime, t } from "../parts/language.js";

/** @typedef {import("../parts/types.js").RunSummary} RunSummary */

const FILTER_FROM = 10;

/**
 * @param {{ runs: RunSummary[], chosen: string[], isWhole: boolean, onToggle: (id: string) => void }} props
 */
export function RunList({ runs, chosen, isWhole, onToggle }) {
    const [filter, setFilter] = useState("");
    const [place, setPlace] = useState(0);
    const list = useRef(/** @type {HTMLElement | null} */ (null));
    const found = [...runs]
        .sort((a, b) => b.updated - a.updated)
        .filter((run) => run.name.toLowerCase().includes(filter.toLowerCase()));
    const current = Math.min(place, found.length - 1);
    /** @param {KeyboardEvent} event */
    const move = (event) => {
        const target = { ArrowDown: current + 1, ArrowUp: current - 1, Home: 0, End: found.length - 1 }[event.key];
        if (target === undefined) return;
        event.preventDefault();
        const next = Math.min(found.length - 1, Math.max(0, target));
        setPlace(next);
        /** @type {HTMLElement | undefined} */ (list.current?.querySelectorAll("input")[next])?.focus();
    };
    return html`<section class="side" aria-labelledby="runs-title">
        <h2 id="runs-title" class="side-title">${t("runs.list")} <span class="count">${runs.length}</span></h2>
        ${runs.length >= FILTER_FROM && html`<label class="field">
            <span class="visually-hidden">${t("runs.filter")}</span>
            <input
                type="search"
                placeholder=${t("runs.filter")}
                value=${filter}
                onInput=${(/** @type {any} */ event) => setFilter(event.currentTarget.value)}
            />
        </label>`}
        <ul class="choices" ref=${list} onKeyDown=${move}>
            ${found.map((run, index) => html`<${RunChoice}
                key=${run.id}
                run=${run}
                color=${chosen.indexOf(run.id) + 1}
                focusable=${index === current}
                onToggle=${() => onToggle(run.id)}
                onFocus=${() => setPlace(index)}
            />`)}
        </ul>
        ${!isWhole && html`<p class="hint">${t("library.not_whole")}</p>`}
    </section>`;
}

/**
 * @param {{ run: RunSummary, color: number, focusable: boolean, onToggle: () => void, onFocus: () => void }} props
 * `color` is the number of the run's colour; 0 if it is not shown
 */
function RunChoice({ run, color, focusable, onToggle, onFocus }) {
    const share = run.num_steps ? Math.min(1, run.step / run.num_steps) : 0;
    const ground = color > 0 ? swatchClass(`--series-${color}`) : "ground-none";
    return html`<li>
        <label class=${`choice${color > 0 ? " choice-on" : ""}`}>
            <input
                type="checkbox"
                checked=${color > 0}
                tabIndex=${focusable ? 0 : -1}
                onChange=${onToggle}
                onFocus=${onFocus}
            />
            <span class=${`choice-swatch ${ground}`} aria-hidden="true"></span>
            <span class="choice-body">
                <span class="choice-name" title=${run.id}>${run.name}</span>
                <span class="choice-facts">
                    <span class=${`state state-${run.state}`}>${stateText(run.state)}</span>
                    <span>${stepText(run)}</span>
                    ${!run.is_finite && html`<span class="bad">${t("runs.nan")}</span>`}
                    ${run.best_validation_loss !== null && html`<span>${t("runs.best", { loss: formatFixed(run.best_validation_loss, 3) })}</span>`}
                </span>
                <span class="choice-time">${formatTime(run.updated)}</span>
                <${Progress} share=${share} running=${run.state === "running"} />
            </span>
        </label>
    </li>`;
}

/**
 * A bar for the share of a whole that is done; the text beside it says the same.
 * @param {{ share: number, running: boolean }} props
 */
export function Progress({ share, running }) {
    return html`<svg class=${`progress${running ? " progress-running" : ""}`} viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
        <rect class="progress-ground" width="100" height="4" /><rect class="progress-done" width=${share * 100} height="4" />
    </svg>`;
}

/**
 * The step of a run, beside the last one where the run's settings say it.
 * @param {{ step: number, num_steps: number | null }} run
 */
export function stepText({ step, num_steps: steps }) {
    return steps === null ? t("runs.step", { step }) : t("runs.step_of", { step, steps });
}

/** @param {import("../parts/types.js").RunState} state */
export function stateText(state) {
    return { running: t("state.running"), stopped: t("state.stopped"), finished: t("state.finished") }[state];
}
