/** Keys that work in the whole page, and the dialog that lists them. Keys of one sign can be switched off. */
import { Toggle } from "./controls.js";
import { Dialog } from "./dialog.js";
import { html } from "./html.js";
import { switchLanguage, t } from "./language.js";
import { showView } from "./route.js";
import { createStore, keepSetting, readSetting, useStore } from "./store.js";
import { switchTheme } from "./theme.js";

const VIEWS = ["runs", "playground", "inside", "data"];

const helpOpen = createStore(false);
const enabled = createStore(readSetting("shortcuts", "on") === "on");

export function openHelp() {
    helpOpen.set(true);
}

/** Listens to the keyboard, for as long as the page is open. */
export function listenToKeys() {
    addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTyping(event)) return;
        if (document.querySelector("dialog[open]") !== null || !enabled.get()) return;
        const action = actions[event.key];
        if (action === undefined) return;
        event.preventDefault();
        action();
    });
}

/** @type {Record<string, () => void>} */
const actions = {
    "?": openHelp,
    "/": focusSearch,
    t: switchTheme,
    l: switchLanguage,
    ...Object.fromEntries(VIEWS.map((view, place) => [String(place + 1), () => showView(view)])),
};

/** @param {KeyboardEvent} event */
function isTyping({ target }) {
    if (!(target instanceof HTMLElement)) return false;
    const texts = target instanceof HTMLInputElement && !["checkbox", "radio", "range", "button"].includes(target.type);
    return texts || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

function focusSearch() {
    const field = /** @type {HTMLElement | null} */ (document.querySelector("main input[type=search], main textarea"));
    field?.focus();
}

export function HelpDialog() {
    const open = useStore(helpOpen);
    const on = useStore(enabled);
    if (!open) return null;
    const rows = [
        ["1 2 3 4", t("help.views")],
        ["/", t("help.search")],
        ["t", t("help.theme")],
        ["l", t("help.language")],
        ["?", t("help.help")],
    ];
    const charts = [
        ["\u2190 \u2192", t("help.chart_cursor")],
        ["+ \u2212", t("help.chart_zoom")],
        ["Shift \u2190 \u2192", t("help.chart_pan")],
        ["0 Esc", t("help.chart_reset")],
    ];
    const lists = [
        ["\u2190 \u2192 \u2191 \u2193", t("help.tokens")],
        ["Home End", t("help.tokens_ends")],
    ];
    return html`<${Dialog} title=${t("help.title")} onClose=${() => helpOpen.set(false)}>
        <${KeyList} title=${t("help.page")} rows=${rows} />
        <${KeyList} title=${t("help.charts")} rows=${charts} />
        <${KeyList} title=${t("help.lists")} rows=${lists} />
        <${Toggle}
            label=${t("help.enabled")}
            checked=${on}
            onChange=${(/** @type {boolean} */ checked) => {
                keepSetting("shortcuts", checked ? "on" : "off");
                enabled.set(checked);
            }}
        />
    <//>`;
}

/**
 * @param {{ title: string, rows: string[][] }} props
 */
function KeyList({ title, rows }) {
    return html`<section class="keys">
        <h3>${title}</h3>
        <dl>${rows.map(([keys, text]) => html`<div key=${text}>
            <dt>${(keys ?? "").split(" ").map((key) => html`<kbd>${key}</kbd> `)}</dt>
            <dd>${text}</dd>
        </div>`)}</dl>
    </section>`;
}
