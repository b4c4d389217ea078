/** The loss of each token: what surprised the model. */
import { heatStyle, percentText } from "../parts/heat.js";
import { html } from "../parts/html.js";
import { formatFixed, listOf, t } from "../parts/language.js";
import { PickedText } from "../parts/picked_text.js";
import { jointLogprob, partsOf } from "../parts/characters.js";
import { tokenNames } from "../parts/tokens.js";
import { HeatLegend } from "./playground_sample.js";

/** @typedef {import("../parts/trace.js").Trace} Trace */
/** @typedef {{ onPick: (place: number) => void, onHover: (place: number | null) => void }} Pointing */

/**
 * @param {{ trace: Trace, token: number } & Pointing} props
 */
export function LossCard({ trace, token, onPick, onHover }) {
    const { tokens, loss } = trace;
    /** @param {number} place */
    const logprob = (place) => (loss[place] === null || loss[place] === undefined ? null : -/** @type {number} */ (loss[place]));
    return html`<section class="card stack" aria-labelledby="loss-title">
        <div class="section-head">
            <h2 id="loss-title">${t("inside.loss")}<span class="chart-note">${t("inside.loss_note")}</span></h2>
            <${HeatLegend} />
        </div>
        <${PickedText} tokens=${tokens} label=${t("inside.loss")} picked=${token} kind="heat"
            styleOf=${(/** @type {number} */ place) => heatStyle(logprob(place))}
            nameOf=${(/** @type {number} */ place) => lossName(trace, place)}
            wholeStyle=${(/** @type {import("../parts/characters.js").Group} */ group) => ({
                style: heatStyle(jointLogprob(tokens.map((_, place) => ({ logprob: logprob(place) })), group)),
            })}
            onPick=${onPick} onHover=${onHover} />
        <p class="token-line">${lossLine(trace, token)}</p>
        ${partsOf(tokens).some((part) => part !== null) && html`<p class="hint">${t("tokens.parts_hint")}</p>`}
    </section>`;
}

/** @param {Trace} trace @param {number} place */
function lossName({ tokens, loss }, place) {
    const token = tokens[place];
    if (token === undefined) return "";
    const value = loss[place];
    const name = tokenNames(tokens)[place] ?? "";
    return value === null || value === undefined ? name : listOf([name, formatFixed(value, 2)]);
}

/** @param {Trace} trace @param {number} place */
function lossLine({ tokens, loss }, place) {
    const token = tokens[place];
    const value = loss[place];
    if (token === undefined) return "";
    const fields = { place: place + 1, piece: tokenNames(tokens)[place] ?? "", id: token.id };
    if (value === null || value === undefined) return t("inside.first_line", fields);
    return t("inside.loss_line", { ...fields, loss: formatFixed(value, 2), probability: percentText(Math.exp(-value)) });
}
