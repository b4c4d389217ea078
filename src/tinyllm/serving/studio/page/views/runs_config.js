/** The settings of runs: those that differ, or all. */
import { Segmented } from "../parts/controls.js";
import { html, useState } from "../parts/html.js";
import { t } from "../parts/language.js";
import { Table } from "../parts/tables.js";

/** @typedef {import("./runs_data.js").ShownRun} ShownRun */

/** @param {{ runs: ShownRun[] }} props */
export function ConfigTable({ runs }) {
    const loaded = runs.filter((run) => run.run !== null);
    const [choice, setChoice] = useState("different");
    if (loaded.length === 0) return null;
    const all = loaded.length === 1 || choice === "all";
    const rows = configRows(loaded).filter(({ values }) => all || new Set(values).size > 1);
    return html`<section class="stack" aria-labelledby="config-title">
        <div class="section-head">
            <h2 id="config-title">${loaded.length > 1 ? t("config.differences") : t("config.title")}</h2>
            ${loaded.length > 1 && html`<${Segmented}
                label=${t("config.which")}
                hideLabel=${true}
                value=${choice}
                options=${[{ value: "different", label: t("config.different") }, { value: "all", label: t("config.all") }]}
                onChange=${setChoice}
            />`}
        </div>
        ${rows.length === 0
            ? html`<p class="hint">${t("config.same")}</p>`
            : html`<${Table}
                caption=${t("config.title")}
                columns=${[{ name: "key", label: t("config.key") }, ...loaded.map(({ id, name }) => ({ name: id, label: name }))]}
                rows=${rows.map(({ key, values }) => ({
                    key,
                    cells: { key: html`<code>${key}</code>`, ...Object.fromEntries(loaded.map(({ id }, place) => [id, values[place]])) },
                }))}
            />`}
    </section>`;
}

/**
 * Each setting of any run, `section.key`, with its value in each run.
 * @param {ShownRun[]} runs
 * @returns {{ key: string, values: string[] }[]}
 */
export function configRows(runs) {
    /** @type {Set<string>} */
    const keys = new Set();
    for (const { run } of runs) {
        for (const [section, values] of Object.entries(run?.config ?? {})) {
            for (const name of Object.keys(values)) keys.add(`${section}.${name}`);
        }
    }
    return [...keys].map((key) => {
        const place = key.indexOf(".");
        const [section, name] = [key.slice(0, place), key.slice(place + 1)];
        return { key, values: runs.map(({ run }) => valueText(run?.config[section]?.[name])) };
    });
}

/** @param {unknown} value */
function valueText(value) {
    if (value === undefined || value === null) return "\u2013";
    return typeof value === "string" ? value : JSON.stringify(value);
}
