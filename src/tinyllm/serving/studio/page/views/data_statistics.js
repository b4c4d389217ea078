/** Statistics of a split: how long documents are, how often tokens occur, and which documents occur twice. */
import { get } from "../parts/api.js";
import { Chart } from "../parts/charts.js";
import { html, useMemo } from "../parts/html.js";
import { formatCompact, formatNumber, formatTick, t } from "../parts/language.js";
import { useLoaded } from "../parts/loading.js";
import { changeState } from "../parts/route.js";
import { ErrorLine, Loading } from "../parts/states.js";
import { Table } from "../parts/tables.js";
import { visiblePiece } from "../parts/tokens.js";

/** @typedef {import("../parts/types.js").Statistics} Statistics */

/** Lengths that differ by this factor stand on a logarithmic axis, as the server's intervals do. */
const LOGARITHMIC_FROM = 20;

/**
 * @param {{ id: string, split: string, look: string }} props
 */
export function StatisticsPart({ id, split, look }) {
    const { data, problem } = useLoaded(
        (signal) => /** @type {Promise<Statistics>} */ (get("statistics", { id, split }, signal)),
        [id, split],
    );
    if (problem !== null) return html`<${ErrorLine} problem=${problem} />`;
    if (data === null) return html`<${Loading} />`;
    return html`<div class="stack stack-wide">
        ${data.sampled && html`<p class="hint">${t("statistics.sampled")}</p>`}
        <div class="charts">
            <div class="card chart-card"><${LengthChart} lengths=${data.lengths} look=${look} /></div>
            <div class="card chart-card">
                <${FrequencyChart} frequencies=${data.frequencies} look=${look} />
                <p class="hint">${t("statistics.unused", { count: data.unused })}</p>
            </div>
        </div>
        <${Duplicates} duplicates=${data.duplicates} />
    </div>`;
}

/**
 * @param {{ lengths: Statistics["lengths"], look: string }} props
 */
function LengthChart({ lengths: { edges, counts }, look }) {
    const series = useMemo(() => [{
        label: t("statistics.documents"),
        color: "--series-1",
        x: edges.slice(0, counts.length),
        y: counts,
        edges,
    }], [edges, counts, look]);
    return html`<${Chart}
        title=${t("statistics.lengths")}
        note=${t("statistics.lengths_note")}
        series=${series}
        formatX=${formatTick}
        formatY=${formatCompact}
        nameX=${(/** @type {number} */ x) => lengthName(edges, x)}
        xLabel="length"
        quiet=${true}
        logX=${(edges.at(-1) ?? 0) > LOGARITHMIC_FROM * (edges[0] ?? 1)}
        fromZero=${true}
        height=${260}
        look=${look}
    />`;
}

/**
 * @param {number[]} edges
 * @param {number} x
 */
function lengthName(edges, x) {
    const end = edges[edges.indexOf(x) + 1];
    const last = end === undefined ? x : end - 1;
    const range = last > x ? `${formatNumber(x)}\u2013${formatNumber(last)}` : formatNumber(x);
    return t("statistics.tokens_number", { count: range });
}

/**
 * @param {{ frequencies: Statistics["frequencies"], look: string }} props
 */
function FrequencyChart({ frequencies: { rank, count, piece }, look }) {
    const series = useMemo(() => [{
        label: t("statistics.count"),
        color: "--series-2",
        x: rank,
        y: count.map((value) => (value > 0 ? value : null)),
        points: rank.length <= 80,
    }], [rank, count, look]);
    return html`<${Chart}
        title=${t("statistics.frequencies")}
        note=${t("statistics.frequencies_note")}
        series=${series}
        formatX=${formatTick}
        formatY=${formatCompact}
        nameX=${(/** @type {number} */ x) => t("statistics.rank", { rank: x, piece: visiblePiece(piece[rank.indexOf(x)] ?? "") })}
        xLabel="rank"
        quiet=${true}
        logX=${true}
        logY=${true}
        height=${260}
        look=${look}
    />`;
}

/**
 * @param {{ duplicates: Statistics["duplicates"] }} props
 */
function Duplicates({ duplicates: { documents, groups } }) {
    return html`<section class="stack" aria-labelledby="duplicates-title">
        <h2 id="duplicates-title">${t("statistics.duplicates")}</h2>
        ${groups.length === 0
            ? html`<p class="hint">${t("statistics.no_duplicates")}</p>`
            : html`<p>${t("statistics.duplicate_documents", { count: documents })}</p>
                <${Table}
                    caption=${t("statistics.duplicates")}
                    columns=${[
                        { name: "text", label: t("statistics.group_text") },
                        { name: "count", label: t("statistics.group_count"), number: true },
                        { name: "places", label: t("statistics.group_places") },
                    ]}
                    rows=${groups.map(({ text, count, indexes }, place) => ({
                        key: String(place),
                        cells: { text: html`<span class="prose">${text}</span>`, count: formatNumber(count), places: [...indexes.map(placeButton), count > indexes.length && t("statistics.more_places", { count: count - indexes.length })] },
                    }))}
                />`}
    </section>`;
}

/** @param {number} index */
function placeButton(index) {
    return html`<button
        key=${index}
        type="button"
        class="link"
        aria-label=${t("documents.open", { index: index + 1 })}
        onClick=${() => changeState({ part: null, from: String(index), q: null }, { push: true })}
    >${formatNumber(index + 1)}</button> `;
}
