/** The logit lens: for each layer and token, the likeliest next tokens if that layer were the last. */
import { percentText } from "../parts/heat.js";
import { html, useMemo, useState } from "../parts/html.js";
import { listOf, sentencesOf, t } from "../parts/language.js";
import { tokenName, tokenNames } from "../parts/tokens.js";
import { layerName } from "./inside_norms.js";

/** @typedef {import("../parts/trace.js").Trace} Trace */
/** @typedef {import("../parts/trace.js").LensToken} LensToken */
/** @typedef {{ row: number, column: number }} Cell */

/**
 * @param {{ trace: Trace, token: number, onPick: (place: number) => void }} props
 */
export function LensCard({ trace, token, onPick }) {
    const [pointed, setPointed] = useState(/** @type {Cell | null} */ (null));
    const cell = pointed ?? { row: trace.lens.length - 1, column: token };
    const rows = trace.lens.length;
    const columns = trace.tokens.length;
    const names = useMemo(() => tokenNames(trace.tokens), [trace]);
    /** @param {Event} event */
    const look = (event) => {
        const found = cellOf(event);
        if (found !== null) setPointed(found);
    };
    /** @param {KeyboardEvent} event */
    const press = (event) => {
        const at = cellOf(event);
        if (at === null) return;
        const next = {
            ArrowRight: { ...at, column: at.column + 1 }, ArrowLeft: { ...at, column: at.column - 1 },
            ArrowDown: { ...at, row: at.row + 1 }, ArrowUp: { ...at, row: at.row - 1 },
            Home: { ...at, column: 0 }, End: { ...at, column: columns - 1 },
        }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        const [row, column] = [clamp(next.row, rows), clamp(next.column, columns)];
        const table = /** @type {HTMLElement} */ (event.currentTarget);
        /** @type {HTMLElement | null} */ (table.querySelector(`[data-cell="${row} ${column}"]`))?.focus();
    };
    const body = useMemo(() => trace.lens.map((row, layer) => html`<tr key=${layer} role="row">
        <th scope="row" role="rowheader">${layerName(layer)}</th>
        ${row.map((found, column) => html`<${LensCell} key=${column} found=${found} row=${layer} column=${column}
            isNext=${found[0]?.id === trace.tokens[column + 1]?.id} stop=${layer === rows - 1 && column === 0} />`)}
    </tr>`), [trace]);
    return html`<section class="card stack" aria-labelledby="lens-title">
        <div>
            <h2 id="lens-title">${t("inside.lens")}</h2>
            <p class="hint">${t("inside.lens_note")} ${t("inside.lens_keys")}</p>
            <p class="lens-legend hint"><span>${t("inside.lens_legend")}</span><span>0%</span>
                <span class="lens-scale" aria-hidden="true">${[0, 25, 50, 75, 100].map((share) => html`<span key=${share} class="lens-cell" style=${{ "--share": `${share}%` }}></span>`)}</span>
                <span>100%</span></p>
        </div>
        <div class="lens-frame">
            <table class="lens" role="grid" aria-labelledby="lens-title" onPointerOver=${look} onFocusIn=${look} onKeyDown=${press}
                onPointerLeave=${() => setPointed(null)} onFocusOut=${() => setPointed(null)}
                onClick=${(/** @type {Event} */ event) => onPick(cellOf(event)?.column ?? token)}>
                <thead><tr role="row">
                    <th scope="col" role="columnheader"><span class="visually-hidden">${t("inside.layer")}</span></th>
                    ${names.map((each, column) => html`<th key=${column} scope="col" role="columnheader" class=${column === token ? "lens-on" : ""}><span class="piece">${each}</span></th>`)}
                </tr></thead>
                <tbody>${body}</tbody>
            </table>
        </div>
        <p class="token-line" role="status">${lensLine(trace, cell)}</p>
    </section>`;
}

/**
 * @param {{ found: LensToken[], row: number, column: number, isNext: boolean, stop: boolean }} props
 */
function LensCell({ found, row, column, isNext, stop }) {
    const best = found[0];
    if (best === undefined) return html`<td role="gridcell"></td>`;
    return html`<td role="gridcell" class=${`lens-cell${isNext ? " lens-next" : ""}`} tabIndex=${stop ? 0 : -1} data-cell=${`${row} ${column}`}
        style=${{ "--share": `${Math.round(100 * best.probability)}%` }}
    ><span class="piece">${tokenName(best)}</span></td>`;
}

/** @param {Event} event @returns {Cell | null} */
function cellOf({ target }) {
    const text = /** @type {HTMLElement} */ (target).closest?.("[data-cell]")?.getAttribute("data-cell");
    if (text === null || text === undefined) return null;
    const [row = 0, column = 0] = text.split(" ").map(Number);
    return { row, column };
}

/** @param {number} value @param {number} count */
function clamp(value, count) {
    return Math.min(count - 1, Math.max(0, value));
}

/** @param {Trace} trace @param {Cell} cell */
function lensLine({ lens, tokens }, { row, column }) {
    const found = lens[row]?.[column];
    const token = tokens[column];
    if (found === undefined || token === undefined) return "";
    const list = listOf(found.map((each) => `${tokenName(each)} ${percentText(each.probability)}`));
    return sentencesOf([layerName(row), t("inside.lens_line", { place: column + 1, piece: tokenNames(tokens)[column] ?? "", list })]);
}
