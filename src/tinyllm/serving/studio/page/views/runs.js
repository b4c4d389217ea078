/** The view of runs: a list to choose from, curves over one another, samples, settings. */
import { html, useCallback, useMemo } from "../parts/html.js";
import { t } from "../parts/language.js";
import { changeState, readRoute } from "../parts/route.js";
import { Empty, ErrorLine, Loading } from "../parts/states.js";
import { RunCharts } from "./runs_charts.js";
import { ConfigTable } from "./runs_config.js";
import { useRuns } from "./runs_data.js";
import { RunList } from "./runs_list.js";
import { SampleLine } from "./runs_samples.js";
import { RunSummaries } from "./runs_summary.js";

/** At most as many runs are shown over one another as there are colours. */
export const MOST_RUNS = 8;

/** @param {import("../main.js").ViewProps} props */
export function RunsView({ library, params, look }) {
    const chosen = useMemo(() => chosenRuns(library.runs, params), [library.runs, params]);
    const runs = useRuns(chosen, library.runs);
    const toggle = useCallback((/** @type {string} */ id) => {
        const next = chosen.includes(id) ? chosen.filter((each) => each !== id) : [...chosen, id];
        changeState({ run: next.slice(-MOST_RUNS), at: null }, { push: true });
    }, [chosen]);
    if (library.runs.length === 0) return html`<${NoRuns} folder=${library.folder} />`;
    const unknown = params.getAll("run").filter((id) => library.runs.every((run) => run.id !== id));
    return html`<div class="with-side">
        <${RunList} runs=${library.runs} chosen=${chosen} isWhole=${library.is_whole} onToggle=${toggle} />
        <div class="stack stack-wide">
            ${unknown.map((id) => html`<${UnknownRun} key=${id} id=${id} />`)}
            ${chosen.length === 0 && html`<p class="hint">${t("runs.choose")}</p>`}
            ${runs.map((run) => html`<${ErrorLine} key=${run.id} problem=${run.problem} />`)}
            ${runs.some((run) => run.metrics === null && run.problem === null) && html`<${Loading} />`}
            <${RunSummaries} runs=${runs} />
            <${RunCharts} runs=${runs} params=${params} look=${look} />
            <${SampleLine} runs=${runs} params=${params} />
            <${ConfigTable} runs=${runs} />
        </div>
    </div>`;
}

/**
 * The runs that the link names, else the one that was changed last.
 * @param {import("../parts/types.js").RunSummary[]} runs
 * @param {URLSearchParams} params
 */
export function chosenRuns(runs, params) {
    const named = params.getAll("run").filter((id) => runs.some((run) => run.id === id));
    if (named.length > 0 || params.has("run")) return named.slice(0, MOST_RUNS);
    const newest = [...runs].sort((a, b) => b.updated - a.updated)[0];
    return newest === undefined ? [] : [newest.id];
}

/** Says that the folder has no run of a link. @param {{ id: string }} props */
function UnknownRun({ id }) {
    const forget = () => changeState({ run: readRoute(location.hash).params.getAll("run").filter((each) => each !== id) });
    return html`<div class="notice" role="status">
        <p>${t("runs.unknown", { id })}</p>
        <button type="button" class="button" onClick=${forget}>${t("runs.forget")}</button>
    </div>`;
}

/** @param {{ folder: string | null }} props */
function NoRuns({ folder }) {
    if (folder === null) {
        return html`<${Empty} title=${t("runs.no_folder")}>
            <p>${t("runs.no_folder_text")}</p><pre><code>tinyllm studio runs</code></pre>
        <//>`;
    }
    return html`<${Empty} title=${t("runs.none")}>
        <p>${t("runs.none_text", { folder })}</p><pre><code>tinyllm demo</code></pre>
    <//>`;
}
