/** The length of the residual stream from layer to layer: of the token that is looked at, and the mean of all. */
import { Chart } from "../parts/charts.js";
import { html, useMemo } from "../parts/html.js";
import { formatNumber, t } from "../parts/language.js";

/** @typedef {import("../parts/trace.js").Trace} Trace */

/**
 * @param {{ trace: Trace, token: number, look: string }} props
 */
export function NormsCard({ trace, token, look }) {
    const { norms } = trace;
    const series = useMemo(() => {
        const x = norms.map((_, layer) => layer);
        const mean = norms.map((row) => row.reduce((sum, norm) => sum + norm, 0) / Math.max(1, row.length));
        return [
            { label: t("inside.norm_mean"), color: "--series-8", x, y: mean, points: true },
            { label: t("inside.norm_of"), color: "--series-1", x, y: norms.map((row) => row[token] ?? null), points: true },
        ];
    }, [norms, token, look]);
    return html`<section class="card chart-card">
        <${Chart} title=${t("inside.norms")} note=${t("inside.norms_note")} series=${series} xLabel=${t("inside.layer")}
            formatX=${(/** @type {number} */ value) => (Number.isInteger(value) ? formatNumber(value) : "")}
            formatY=${formatNumber} nameX=${(/** @type {number} */ value) => layerName(value)} look=${look} />
    </section>`;
}

/** @param {number} row */
export function layerName(row) {
    return row === 0 ? t("inside.lens_start") : t("inside.lens_end", { layer: row });
}
