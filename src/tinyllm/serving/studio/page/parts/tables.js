/** Tables. A wide one scrolls inside its own frame, which the keyboard reaches. */
import { html } from "./html.js";

/** @typedef {import("./html.js").Children} Children */
/** @typedef {{ name: string, label: Children, number?: boolean }} TableColumn */

/**
 * @param {{ caption: string, columns: TableColumn[], rows: { key: string, cells: Record<string, Children> }[],
 *     showCaption?: boolean }} props
 * The first column heads each row.
 */
export function Table({ caption, columns, rows, showCaption = false }) {
    return html`<div class="table-frame" role="group" aria-label=${caption} tabIndex=${0}>
        <table>
            <caption class=${showCaption ? "" : "visually-hidden"}>${caption}</caption>
            <thead><tr>${columns.map(({ name, label, number }) => html`<th
                key=${name} scope="col" class=${number ? "number" : ""}
            >${label}</th>`)}</tr></thead>
            <tbody>${rows.map(({ key, cells }) => html`<tr key=${key}>${columns.map(({ name, number }, place) =>
                place === 0
                    ? html`<th key=${name} scope="row" class=${number ? "number" : ""}>${cells[name]}</th>`
                    : html`<td key=${name} class=${number ? "number" : ""}>${cells[name]}</td>`,
            )}</tr>`)}</tbody>
        </table>
    </div>`;
}
