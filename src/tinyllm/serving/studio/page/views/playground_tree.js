/** The outline of a tree of continuations. The arrow keys walk and fold it, Delete removes a branch. */
import { percentText } from "../parts/heat.js";
import { html, useRef } from "../parts/html.js";
import { listOf, t } from "../parts/language.js";
import { outline } from "../parts/play_tree.js";
import { visiblePiece } from "../parts/tokens.js";
import { foldBranch, removeBranch, walkTo } from "./playground_store.js";

/** @typedef {import("../parts/play_types.js").Sample} Sample */
/** @typedef {import("../parts/play_types.js").Branch} Branch */

const MOST_SHOWN = 72;

/** @param {{ sample: Sample }} props */
export function BranchTree({ sample }) {
    const list = useRef(/** @type {HTMLElement | null} */ (null));
    const { branches, folded, active } = sample;
    const rows = outline(branches, folded);
    const here = Math.max(0, rows.findIndex(({ index }) => index === active));
    /** @param {number} place */
    const go = (place) => {
        const row = rows[Math.min(rows.length - 1, Math.max(0, place))];
        if (row === undefined) return;
        walkTo(sample, row.index);
        /** @type {HTMLElement | null | undefined} */ (list.current?.querySelector(`[data-branch="${row.index}"]`))?.focus();
    };
    /** @param {KeyboardEvent} event */
    const press = (event) => {
        const row = rows[here];
        if (row === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
        const isFolded = folded.has(row.index);
        const parent = rows.findIndex(({ index }) => index === branches[row.index]?.parent);
        /** @type {Record<string, () => void>} */
        const actions = {
            ArrowDown: () => go(here + 1),
            ArrowUp: () => go(here - 1),
            Home: () => go(0),
            End: () => go(rows.length - 1),
            ArrowRight: () => (isFolded ? foldBranch(sample, row.index, false) : row.children > 0 && go(here + 1)),
            ArrowLeft: () => (row.children > 0 && !isFolded ? foldBranch(sample, row.index, true) : parent >= 0 && go(parent)),
            Delete: () => {
                if (parent < 0) return;
                go(parent);
                removeBranch(sample, row.index);
            },
        };
        const action = actions[event.key];
        if (action === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        action();
    };
    return html`<div class="tree-part">
        <h3>${t("play.tree")}</h3>
        <p class="hint">${t("play.tree_keys")}</p>
        <div class="tree" role="tree" aria-label=${t("play.tree")} ref=${list} onKeyDown=${press}>
            ${rows.map((row) => html`<${TreeRow} key=${row.index} row=${row} sample=${sample} on=${row.index === active} />`)}
        </div>
    </div>`;
}

/**
 * @param {{ row: { index: number, level: number, children: number }, sample: Sample, on: boolean }} props
 */
function TreeRow({ row: { index, level, children }, sample, on }) {
    const branch = /** @type {Branch} */ (sample.branches[index]);
    const folded = sample.folded.has(index);
    const first = branch.token === null ? undefined : branch.tokens[0];
    const text = visiblePiece(branch.tokens.slice(0, MOST_SHOWN).map(({ piece }) => piece).join("").slice(0, MOST_SHOWN).trim());
    return html`<div
        role="treeitem"
        class=${`tree-row${on ? " tree-on" : ""}`}
        style=${{ "--level": String(level - 1) }}
        data-branch=${index}
        tabIndex=${on ? 0 : -1}
        aria-level=${level}
        aria-selected=${String(on)}
        aria-expanded=${children > 0 ? String(!folded) : undefined}
        onClick=${() => walkTo(sample, index)}
    >
        <span class="tree-fold" aria-hidden="true" onClick=${(/** @type {Event} */ event) => {
            if (children === 0) return;
            event.stopPropagation();
            foldBranch(sample, index, !folded);
        }}>${children > 0 ? (folded ? "\u25b8" : "\u25be") : ""}</span>
        <span class="tree-text">${text || "\u2026"}</span>
        <span class="tree-facts">${listOf([
            branch.parent === null ? t("play.first") : t("play.at_token", { place: branch.start + 1 }),
            first !== undefined && percentText(Math.exp(first.logprob)),
            folded && t("play.folded", { count: children }),
        ])}</span>
        ${branch.parent !== null && html`<span class="tree-remove" aria-hidden="true" title=${t("play.remove")} onClick=${(/** @type {Event} */ event) => {
            event.stopPropagation();
            removeBranch(sample, index);
        }}>\u00d7</span>`}
    </div>`;
}
