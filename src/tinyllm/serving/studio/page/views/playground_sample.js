/** One sample: the text of its active branch, and the outline of its tree. */
import { Button } from "../parts/controls.js";
import { html, useMemo } from "../parts/html.js";
import { formatNumber, t } from "../parts/language.js";
import { candidates, forks, pathTokens } from "../parts/play_tree.js";
import { ShadedText } from "../parts/shaded_text.js";
import { TextError } from "../parts/states.js";
import { BranchTree } from "./playground_tree.js";
import { branchOff, cursor, rewrite } from "./playground_store.js";

/** @typedef {import("../parts/play_types.js").Sample} Sample */
/** @typedef {import("../parts/play_types.js").Settings} Settings */
/** @typedef {import("../parts/shaded_text.js").ShadedToken} ShadedToken */

/**
 * @param {{ sample: Sample, index: number, many: boolean, settings: Settings, library: import("../parts/types.js").Library }} props
 */
export function SampleCard({ sample, index, many, settings, library }) {
    const { branches, active, prompt } = sample;
    const branch = branches[active];
    const tokens = useTokens(sample);
    if (branch === undefined) return null;
    const seed = branch.settings.seed + sample.offset;
    const title = sampleTitle(sample, index, many, library);
    const writing = branch.state === "writing" || branch.state === "waiting";
    // The outline stays when its last branch is removed: the focus is in it.
    return html`<section class="card play-sample" aria-label=${title}>
        <header class="play-sample-head">
            <h2>${title}</h2>
            <span class="hint" role="status">${stateText(branch, tokens.length - prompt.length)}</span>
        </header>
        ${tokens.length > 0 && html`<${ShadedText}
            tokens=${tokens}
            label=${t("play.text_of", { name: title })}
            writing=${writing}
            onTake=${(/** @type {number} */ place, /** @type {number} */ id) => branchOff(sample, place - prompt.length, id, settings)}
            onLook=${(/** @type {number} */ place) => cursor.set({ sample: index, place: place > 0 ? place : null })}
        />`}
        <${TextError} problem=${branch.problem}>
            <${Button} disabled=${writing} onClick=${() => void rewrite(sample)}>${t("error.again")}<//>
        <//>
        <footer class="play-sample-foot">
            <${Button} disabled=${writing || branch.state === "failed"} onClick=${() => branchOff(sample, pathTokens(branches, active).length, null, settings)}>${t("play.go_on")}<//>
            <span class="hint">${t("play.seed_is", { seed: String(seed) })}</span>
            <${HeatLegend} />
        </footer>
        ${branches.length > 1 && html`<${BranchTree} sample=${sample} />`}
    </section>`;
}

/**
 * The name of a sample: its model, and its number if there are several.
 * @param {Sample} sample
 * @param {number} index
 * @param {boolean} many
 * @param {import("../parts/types.js").Library} library
 */
export function sampleTitle({ model }, index, many, { models }) {
    const name = models.find(({ id }) => id === model)?.name ?? model;
    return many ? t("play.sample_of", { number: index + 1, name }) : name;
}

/**
 * @param {import("../parts/play_types.js").Branch} branch
 * @param {number} numTokens of the whole text
 */
function stateText({ state, reason, speed }, numTokens) {
    if (state === "waiting" || state === "writing") return t("play.writing");
    if (state === "failed") return "";
    const count = t("play.count", { count: numTokens });
    const how = state === "stopped" ? t("play.stopped") : reason === "stop" ? t("play.ended") : "";
    const rate = speed === null || speed === undefined ? "" : t("play.speed", { speed: formatNumber(Math.round(speed)) });
    return [count, how, rate].filter(Boolean).join(" \u00b7 ");
}

/**
 * The tokens of the active text, with what can be taken at each.
 * @param {Sample} sample
 * @returns {ShadedToken[]}
 */
function useTokens({ prompt, branches, active }) {
    const own = pathTokens(branches, active);
    const taken = useMemo(() => forks(branches, active), [branches.length, active, branches.filter(({ removed }) => removed).length, own.length > 0]);
    const fixed = useMemo(() => prompt.map((token) => ({ ...token, fixed: true })), [prompt]);
    return [
        ...fixed,
        ...own.map((token, place) => ({ ...token, candidates: candidates(token), taken: taken.get(place) })),
    ];
}

/** What the shades mean. */
export function HeatLegend() {
    return html`<span class="heat-legend" aria-hidden="true">
        <span>${t("play.likely")}</span>
        <span class="heat-scale">${[0, 25, 50, 75, 100].map((share) => html`<span key=${share} style=${{ "--heat": `${share}%` }}></span>`)}</span>
        <span>${t("play.surprising")}</span>
    </span>`;
}
