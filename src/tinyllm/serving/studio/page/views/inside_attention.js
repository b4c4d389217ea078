/** Attention: every head as a small map to choose from, the chosen one large, and what a token looks at. */
import { Select } from "../parts/controls.js";
import { percentText } from "../parts/heat.js";
import { html, useMemo, useState } from "../parts/html.js";
import { formatFixed, listOf, t } from "../parts/language.js";
import { PickedText } from "../parts/picked_text.js";
import { changeState, numberParam } from "../parts/route.js";
import { tokenNames } from "../parts/tokens.js";
import { headWeights, looksAt } from "../parts/trace.js";
import { HeadGrid, HeadMap } from "./inside_maps.js";

/** @typedef {import("../parts/trace.js").Trace} Trace */
/** @typedef {import("../parts/trace.js").HeadRole} HeadRole */
/** @typedef {{ layer: number, head: number }} Head */

const ROLES = /** @type {const} */ (["previous", "beginning", "same", "after_same"]);
const ROLE_NAMES = /** @type {const} */ ({
    previous: "inside.role_previous", beginning: "inside.role_beginning", same: "inside.role_same", after_same: "inside.role_after_same",
});
const MOST_OF_ROLE = 6;
const NUM_LOOKS = 5;

/**
 * @param {{ trace: Trace, token: number, params: URLSearchParams, look: string } & import("./inside_loss.js").Pointing} props
 */
export function AttentionCard({ trace, token, params, look, onPick, onHover }) {
    const [hovered, setHovered] = useState(/** @type {Head | null} */ (null));
    const chosen = chosenHead(trace, params);
    const { layer, head } = hovered ?? chosen;
    const map = useMemo(() => headWeights(trace, layer, head), [trace, layer, head]);
    const { tokens } = trace;
    const name = t("inside.head_of", { layer: layer + 1, head: head + 1 });
    const role = roleOf(trace, layer, head);
    /** @param {Head} next */
    const choose = (next) => changeState({ layer: String(next.layer + 1), head: String(next.head + 1) });
    return html`<section class="card stack" aria-labelledby="attention-title">
        <div class="section-head">
            <h2 id="attention-title">${t("inside.attention")}</h2>
            <div class="tools">
                <${NumberSelect} label=${t("inside.layer")} value=${chosen.layer} count=${trace.layers} onChange=${(/** @type {number} */ next) => choose({ ...chosen, layer: next })} />
                <${NumberSelect} label=${t("inside.head")} value=${chosen.head} count=${trace.heads} onChange=${(/** @type {number} */ next) => choose({ ...chosen, head: next })} />
            </div>
        </div>
        <div class="attention">
            <${HeadGrid} trace=${trace} chosen=${chosen} look=${look} onChoose=${choose} onHover=${setHovered} />
            <div class="stack">
                <h3>${name}${role && html`<span class="chart-note">${t(ROLE_NAMES[role.role])} ${formatFixed(role.score, 2)}</span>`}</h3>
                <div class="attention-head">
                    <${HeadMap} map=${map} names=${tokenNames(tokens)} token=${token} look=${look} label=${t("inside.map", { layer: layer + 1, head: head + 1 })}
                        onPick=${onPick} onHover=${onHover} />
                    <div class="stack">
                        <${PickedText} tokens=${tokens} label=${t("inside.attention")} picked=${token} kind="look"
                            styleOf=${(/** @type {number} */ place) => ({ "--share": `${weightAt(map, tokens.length, token, place)}%` })}
                            nameOf=${(/** @type {number} */ place) => tokenNameAt(trace, place)}
                            onPick=${onPick} onHover=${onHover} />
                        <p class="token-line" role="status">${looksLine(trace, map, token)}</p>
                        <p class="hint">${t("inside.attention_note")}</p>
                        <${RoleList} trace=${trace} chosen=${chosen} onChoose=${choose} />
                    </div>
                </div>
            </div>
        </div>
    </section>`;
}

/**
 * The head of the link, else the one with the clearest role.
 * @param {Trace} trace
 * @param {URLSearchParams} params
 * @returns {Head}
 */
function chosenHead({ roles, layers, heads }, params) {
    const best = roles.filter(({ role }) => role !== "beginning").sort((a, b) => b.score - a.score)[0];
    return {
        layer: Math.round(numberParam(params, "layer", (best?.layer ?? 0) + 1, 1, layers)) - 1,
        head: Math.round(numberParam(params, "head", (best?.head ?? 0) + 1, 1, heads)) - 1,
    };
}

/** @param {Trace} trace @param {number} layer @param {number} head */
function roleOf({ roles }, layer, head) {
    return roles.filter((each) => each.layer === layer && each.head === head).sort((a, b) => b.score - a.score)[0];
}

/**
 * @param {{ label: string, value: number, count: number, onChange: (value: number) => void }} props
 */
function NumberSelect({ label, value, count, onChange }) {
    const options = Array.from({ length: count }, (_, place) => ({ value: String(place), label: String(place + 1) }));
    return html`<${Select} label=${label} value=${String(value)} options=${options} onChange=${(/** @type {string} */ next) => onChange(Number(next))} />`;
}

/**
 * The heads with a role, by role.
 * @param {{ trace: Trace, chosen: Head, onChoose: (head: Head) => void }} props
 */
function RoleList({ trace: { roles }, chosen, onChoose }) {
    const groups = ROLES.map((role) => ({
        role,
        heads: roles.filter((each) => each.role === role).sort((a, b) => b.score - a.score).slice(0, MOST_OF_ROLE),
    })).filter(({ heads }) => heads.length > 0);
    return html`<section class="roles" aria-label=${t("inside.roles")}>
        <h3>${t("inside.roles")}</h3>
        ${groups.length === 0 && html`<p class="hint">${t("inside.no_roles")}</p>`}
        ${groups.map(({ role, heads }) => html`<div key=${role} class="role">
            <p>${t(ROLE_NAMES[role])}</p>
            <div class="role-heads">${heads.map(({ layer, head, score }) => html`<button
                key=${`${layer} ${head}`}
                type="button"
                class="button role-head"
                aria-pressed=${String(layer === chosen.layer && head === chosen.head)}
                onClick=${() => onChoose({ layer, head })}
            >${layer + 1}.${head + 1} <span>${formatFixed(score, 2)}</span></button>`)}</div>
        </div>`)}
    </section>`;
}

/** @param {Uint8Array} map @param {number} numTokens @param {number} token @param {number} place */
function weightAt(map, numTokens, token, place) {
    return Math.round(((map[token * numTokens + place] ?? 0) * 100) / 255);
}

/** @param {Trace} trace @param {number} place */
function tokenNameAt({ tokens }, place) {
    return tokenNames(tokens)[place] ?? "";
}

/** @param {Trace} trace @param {Uint8Array} map @param {number} token */
function looksLine(trace, map, token) {
    const looks = looksAt(map, trace.tokens.length, token, NUM_LOOKS);
    const list = listOf(looks.map(({ at, weight }) => t("inside.look", { piece: tokenNameAt(trace, at), place: at + 1, share: percentText(weight) })));
    return t("inside.looks_at", { piece: tokenNameAt(trace, token), list });
}
