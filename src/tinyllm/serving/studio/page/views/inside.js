/** The view into a model: losses, attention, what each layer would say, and norms for a short text. */
import { post } from "../parts/api.js";
import { CopyButton, Select, TextArea } from "../parts/controls.js";
import { html, useCallback, useMemo, useState } from "../parts/html.js";
import { formatFixed, formatNumber, t } from "../parts/language.js";
import { firstModel } from "../parts/library.js";
import { useLoaded } from "../parts/loading.js";
import { FIRST_PROMPT } from "../parts/play_link.js";
import { changeState, numberParam } from "../parts/route.js";
import { Empty, ErrorLine, Loading } from "../parts/states.js";
import { meanLoss, mostSurprising, readTrace } from "../parts/trace.js";
import { AttentionCard } from "./inside_attention.js";
import { LensCard } from "./inside_lens.js";
import { LossCard } from "./inside_loss.js";
import { NormsCard } from "./inside_norms.js";
import { modelOptions } from "./playground_prompt.js";

/** @typedef {import("../parts/trace.js").Trace} Trace */

const REST_MS = 400;
const MOST_CHARACTERS = 4000;
/** Names and words occur twice, so that heads show what they do. */
const FIRST_TEXT = "Once upon a time, there was a little girl named Lily. She had a little dog named Tim. One day, Lily and Tim went to the park.";
/** A model that reads fewer tokens begins with a shorter text. */
const SHORT_CONTEXT = 128;

/** @param {import("../main.js").ViewProps} props */
export function InsideView({ library, params, look }) {
    const model = params.get("model") ?? firstModel(library) ?? "";
    const text = params.has("blank") ? "" : (params.get("text") ?? firstText(library, model));
    const { data, problem, loading } = useLoaded(
        model === "" || text === "" ? null : async (signal) => readTrace(await post("trace", { model, text }, signal)),
        [model, text],
        { waitMs: REST_MS },
    );
    if (library.models.length === 0) return html`<${Empty} title=${t("play.none")}><pre><code>tinyllm demo</code></pre><//>`;
    return html`<div class="stack">
        <section class="card inside-text" aria-label=${t("inside.text")}>
            <${TextArea} label=${t("inside.text")} value=${text} rows=${3} maxLength=${MOST_CHARACTERS}
                onChange=${(/** @type {string} */ next) => changeState({ text: next, blank: next === "" ? "1" : null, token: null })} />
            <div class="play-bar">
                <${Select} label=${t("play.model")} value=${model} options=${modelOptions(library, model)}
                    onChange=${(/** @type {string} */ next) => changeState({ model: next, layer: null, head: null })} />
                <${TraceFacts} trace=${data} />
                <div class="play-actions">
                    <${CopyButton} text=${() => linkOf(model, text)} label=${t("play.copy_link")} />
                </div>
            </div>
        </section>
        <${ErrorLine} problem=${problem} />
        ${text === "" && html`<p class="hint">${t("inside.empty")}</p>`}
        ${data === null
            ? loading && html`<${Loading} />`
            : html`<${TraceParts} key=${`${model} ${data.tokens.length}`} trace=${data} params=${params} look=${look} />`}
    </div>`;
}

/**
 * A text to begin with that the model can read.
 * @param {import("../parts/types.js").Library} library
 * @param {string} model
 */
function firstText({ models }, model) {
    const length = models.find(({ id }) => id === model)?.context_length ?? 0;
    return length < SHORT_CONTEXT ? FIRST_PROMPT : FIRST_TEXT;
}

/**
 * The link with the model and the text named, so that it shows the same where the defaults differ.
 * @param {string} model
 * @param {string} text
 */
function linkOf(model, text) {
    changeState({ model, text });
    return location.href;
}

/** @param {{ trace: Trace | null }} props */
function TraceFacts({ trace }) {
    const mean = trace === null ? null : meanLoss(trace.loss);
    if (trace === null || mean === null) return null;
    const facts = [
        [t("inside.tokens"), formatNumber(trace.tokens.length)],
        [t("inside.mean_loss"), formatFixed(mean, 2)],
        [t("inside.perplexity"), formatNumber(Math.exp(mean))],
    ];
    return html`<dl class="facts">${facts.map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/**
 * @param {{ trace: Trace, params: URLSearchParams, look: string }} props
 */
function TraceParts({ trace, params, look }) {
    const [hovered, setHovered] = useState(/** @type {number | null} */ (null));
    const last = trace.tokens.length - 1;
    const picked = Math.round(numberParam(params, "token", mostSurprising(trace.loss), 0, last));
    const pick = useCallback((/** @type {number} */ place) => changeState({ token: String(place) }), []);
    const token = hovered !== null && hovered <= last ? hovered : picked;
    const shared = useMemo(() => ({ onPick: pick, onHover: setHovered }), []);
    return html`<div class="stack">
        <div class="inside-row">
            <${LossCard} trace=${trace} token=${token} ...${shared} />
            <${NormsCard} trace=${trace} token=${token} look=${look} />
        </div>
        <${AttentionCard} trace=${trace} token=${token} params=${params} look=${look} ...${shared} />
        <${LensCard} trace=${trace} token=${token} onPick=${pick} />
    </div>`;
}
