/** Sliders of the sampling, and beside them the distribution of the next token as they cut it. */
import { post } from "../parts/api.js";
import { Button, NumberField, Slider } from "../parts/controls.js";
import { percentText } from "../parts/heat.js";
import { html, useMemo } from "../parts/html.js";
import { formatFixed, formatNumber, formatPercent, t } from "../parts/language.js";
import { readableIds } from "../parts/library.js";
import { useLoaded } from "../parts/loading.js";
import { DEFAULTS, LIMITS, settingChanges } from "../parts/play_link.js";
import { pathTokens } from "../parts/play_tree.js";
import { changeState } from "../parts/route.js";
import { ErrorLine } from "../parts/states.js";
import { tokenName } from "../parts/tokens.js";

/** @typedef {import("../parts/play_types.js").Settings} Settings */
/** @typedef {import("../parts/play_types.js").Sample} Sample */
/** @typedef {import("../parts/play_types.js").NextAnswer} NextAnswer */

const REST_MS = 120;
const SHOWN_CHARACTERS = 40;
const SLIDERS = /** @type {const} */ (["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_tokens"]);
const LABELS = /** @type {const} */ ({
    temperature: "play.temperature", top_k: "play.top_k", top_p: "play.top_p", min_p: "play.min_p",
    repetition_penalty: "play.repetition_penalty", max_tokens: "play.max_tokens",
});

/**
 * @param {{ settings: Settings, model: string, sample: Sample | undefined, place: number | null, prompt: string }} props
 */
export function SettingsCard({ settings, model, sample, place, prompt }) {
    return html`<aside class="card play-settings" aria-label=${t("play.settings")}>
        <${Sliders} settings=${settings} />
        <${Distribution} settings=${settings} model=${model} sample=${sample} place=${place} prompt=${prompt} />
    </aside>`;
}

/** @param {{ settings: Settings }} props */
export function Sliders({ settings }) {
    const changed = SLIDERS.some((name) => settings[name] !== DEFAULTS[name]);
    return html`<div class="section-head">
            <h2>${t("play.settings")}</h2>
            <${Button} kind="quiet" disabled=${!changed} onClick=${() => changeState(settingChanges({ ...DEFAULTS, seed: settings.seed }))}>${t("play.defaults")}<//>
        </div>
        <div class="play-sliders">
            ${SLIDERS.map((name) => html`<${Slider}
                key=${name}
                label=${t(LABELS[name])}
                value=${settings[name]}
                min=${LIMITS[name].least}
                max=${LIMITS[name].most}
                step=${LIMITS[name].step}
                text=${valueText(name, settings[name])}
                onInput=${(/** @type {number} */ value) => changeState(settingChanges({ [name]: value }))}
            />`)}
            <${NumberField} label=${t("play.seed")} value=${settings.seed} least=${LIMITS.seed.least} most=${LIMITS.seed.most}
                onChange=${(/** @type {number} */ seed) => changeState(settingChanges({ seed }))} />
        </div>`;
}

/**
 * @param {typeof SLIDERS[number]} name
 * @param {number} value
 */
function valueText(name, value) {
    if (name === "max_tokens") return formatNumber(value);
    if (name === "top_k") return value === 0 ? t("play.all") : formatNumber(value);
    if (value === DEFAULTS[name] && name !== "temperature") return t("play.off");
    return formatFixed(value, 2);
}

/**
 * @param {{ settings: Settings, model: string, sample: Sample | undefined, place: number | null, prompt: string }} props
 */
function Distribution({ settings, model, sample, place, prompt }) {
    const { context, before } = contextOf(sample, place, prompt);
    const { temperature, top_k, top_p, min_p, repetition_penalty } = settings;
    const cuts = { temperature, top_k, top_p, min_p, repetition_penalty };
    const { data, problem, loading } = useLoaded(
        context === null ? null : (signal) => /** @type {Promise<NextAnswer>} */ (post("next", { model, ...context, ...cuts }, signal)),
        [model, JSON.stringify(context), JSON.stringify(cuts)],
        { waitMs: REST_MS },
    );
    return html`<section class="stack" aria-label=${t("play.next")}>
        <div>
            <h2>${t("play.next")}</h2>
            <p class="hint play-before">${before === "" ? t("play.at_start") : t("play.after", { text: before })}</p>
        </div>
        <${ErrorLine} problem=${problem} />
        ${data !== null && html`<${DistributionBars} answer=${data} stale=${loading} />`}
    </section>`;
}

/**
 * What the next token follows: the text up to a place, up to its end, or the prompt. Null while a text is written.
 * @param {Sample | undefined} sample
 * @param {number | null} place
 * @param {string} prompt
 * @returns {{ context: { prompt: string } | { tokens: number[] } | null, before: string }}
 */
function contextOf(sample, place, prompt) {
    const branch = sample?.branches[sample.active];
    if (sample === undefined || branch === undefined) return { context: { prompt }, before: tail(prompt) };
    const all = [...sample.prompt, ...pathTokens(sample.branches, sample.active)].slice(0, place ?? undefined);
    const busy = place === null && (branch.state === "writing" || branch.state === "waiting");
    if (busy || sample.prompt.length === 0) return { context: null, before: "\u2026" };
    const tokens = readableIds(all.map(({ id }) => id), sample.model);
    return { context: { tokens }, before: tail(all.slice(1).map(({ piece }) => piece).join("")) };
}

/** @param {string} text */
function tail(text) {
    const shown = text.trimEnd().replaceAll("\n", " ");
    return shown.length > SHOWN_CHARACTERS ? `\u2026${shown.slice(-SHOWN_CHARACTERS)}` : shown;
}

/**
 * @param {{ answer: NextAnswer, stale: boolean }} props
 */
function DistributionBars({ answer: { tokens, kept, entropy, covered }, stale }) {
    const most = useMemo(() => Math.max(...tokens.map(({ logprob, probability }) => Math.max(Math.exp(logprob), probability))), [tokens]);
    const facts = [
        [t("play.kept"), formatNumber(kept)],
        [t("play.covered"), formatPercent(covered)],
        [t("play.choices"), formatFixed(Math.exp(entropy), 1)],
    ];
    return html`<dl class="facts play-facts">${facts.map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>
        <p class="bars-legend hint"><span class="bar-key bar-key-model"></span>${t("play.of_model")}<span class="bar-key bar-key-drawn"></span>${t("play.of_drawing")}</p>
        <div class="bars-frame" role="group" tabIndex=${0} aria-label=${t("play.next")}>
            <table class=${`bars${stale ? " bars-stale" : ""}`}>
                <colgroup><col class="bars-name" /><col /><col class="bars-share" /></colgroup>
                <thead><tr>${[t("tokenizer.piece"), t("play.of_model"), t("play.of_drawing")].map((name) => html`<th
                    key=${name} scope="col"><span class="visually-hidden">${name}</span></th>`)}</tr></thead>
                <tbody>${tokens.map((token) => html`<tr key=${token.id} class=${token.probability > 0 ? "" : "bar-cut"}>
                    <th scope="row"><span class="piece">${tokenName(token)}</span></th>
                    <td class="bar-cell">
                        <span class="bar bar-model" style=${{ width: `${(100 * Math.exp(token.logprob)) / most}%` }}></span>
                        <span class="bar bar-drawn" style=${{ width: `${(100 * token.probability) / most}%` }}></span>
                        <span class="visually-hidden">${percentText(Math.exp(token.logprob))}</span>
                    </td>
                    <td class="number">${token.probability > 0 ? percentText(token.probability) : t("play.cut")}</td>
                </tr>`)}</tbody>
            </table>
        </div>`;
}
