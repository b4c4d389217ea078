/** The playground: a text that a model continues, how tokens are drawn, and trees of continuations side by side. */
import { Segmented } from "../parts/controls.js";
import { html, useEffect, useMemo } from "../parts/html.js";
import { listOf, t } from "../parts/language.js";
import { firstModel } from "../parts/library.js";
import { MOST_SAMPLES, readSettings } from "../parts/play_link.js";
import { changeState } from "../parts/route.js";
import { Empty } from "../parts/states.js";
import { useStore } from "../parts/store.js";
import { ChatPart } from "./playground_chat.js";
import { CommandCard } from "./playground_commands.js";
import { PromptForm, promptOf } from "./playground_prompt.js";
import { SampleCard, sampleTitle } from "./playground_sample.js";
import { SettingsCard } from "./playground_settings.js";
import { cursor, showLink, written } from "./playground_store.js";

/** @typedef {import("../parts/types.js").Library} Library */

/** Pieces and shades that show what a text looks like. */
const EXAMPLE = /** @type {[string, number][]} */ ([
    ["Once upon a time", 0], [" a", 12], [" curious", 55], [" fox", 34], [" found", 25], [" a", 0], [" silver", 62], [" whistle", 88], [".", 6],
]);

/** @param {import("../main.js").ViewProps} props */
export function PlaygroundView({ library, params }) {
    const models = useMemo(() => chosenModels(library, params), [library.models, params]);
    if (library.models.length === 0) return html`<${NoModels} folder=${library.folder} />`;
    const chatModels = library.models.filter(({ has_chat }) => has_chat);
    const chat = chatModels.length > 0 && params.get("mode") === "chat";
    return html`<div class="stack">
        ${!chat && params.get("mode") === "chat" && html`<p class="notice" role="status">${t("play.no_chat")}</p>`}
        ${chatModels.length > 0 && html`<${Segmented}
            label=${t("play.mode")}
            hideLabel=${true}
            value=${chat ? "chat" : "text"}
            options=${[{ value: "text", label: t("play.text") }, { value: "chat", label: t("play.chat") }]}
            onChange=${(/** @type {string} */ mode) => changeState({ mode: mode === "chat" ? mode : null }, { push: true })}
        />`}
        ${chat
            ? html`<${ChatPart} models=${chatModels} first=${firstModel(library)} params=${params} />`
            : html`<${TextPart} library=${library} models=${models} params=${params} />`}
    </div>`;
}

/**
 * The model of each sample: those of the link, those of the texts, else the first one.
 * @param {Library} library
 * @param {URLSearchParams} params
 */
function chosenModels(library, params) {
    const named = (params.has("model") ? params.getAll("model") : params.getAll("by")).slice(0, MOST_SAMPLES);
    const first = firstModel(library);
    return named.length > 0 ? named : first === undefined ? [] : [first];
}

/**
 * @param {{ library: Library, models: string[], params: URLSearchParams }} props
 */
function TextPart({ library, models, params }) {
    const { prompt, samples } = useStore(written);
    const { sample, place } = useStore(cursor);
    const settings = useMemo(() => readSettings(params), [params]);
    useEffect(() => showLink(params), [params]);
    const shown = samples[sample] ?? samples[0];
    return html`<div class="play">
        <div class="stack">
            <${PromptForm} library=${library} models=${models} params=${params} settings=${settings} />
            ${samples.length > 0 && html`<div class=${`play-samples play-samples-${samples.length}`}>
                ${samples.map((each, index) => html`<${SampleCard}
                    key=${`${index} ${each.model}`} sample=${each} index=${index} many=${samples.length > 1}
                    settings=${settings} library=${library}
                />`)}
            </div>`}
            ${samples.length === 0 && html`<div class="play-hint">
                <p>${t("play.hint")}</p>
                <p class="shaded-body" aria-hidden="true">${EXAMPLE.map(([piece, heat]) => html`<span key=${piece} class="heat" style=${{ "--heat": `${heat}%` }}>${piece}</span>`)}</p>
            </div>`}
            <${CommandCard} sample=${shown} name=${shown === undefined ? "" : commandName(shown, samples, library)} />
        </div>
        <${SettingsCard} settings=${settings} model=${shown?.model ?? models[0] ?? ""} sample=${shown} place=${place}
            prompt=${shown === undefined ? promptOf(params) : prompt} />
    </div>`;
}

/**
 * Which text the commands write: the sample and its seed.
 * @param {import("../parts/play_types.js").Sample} shown
 * @param {import("../parts/play_types.js").Sample[]} samples
 * @param {Library} library
 */
function commandName(shown, samples, library) {
    const branch = shown.branches[shown.active];
    const seed = t("play.seed_is", { seed: String((branch?.settings.seed ?? 0) + shown.offset) });
    return listOf([sampleTitle(shown, samples.indexOf(shown), samples.length > 1, library), seed]);
}

/** @param {{ folder: string | null }} props */
function NoModels({ folder }) {
    return html`<${Empty} title=${t("play.none")}>
        <p>${folder === null ? t("play.none_served") : t("play.none_text", { folder })}</p>
        <pre><code>tinyllm demo</code></pre>
    <//>`;
}
