/** The page: its frame, and the view that `location.hash` names. */
import { Button } from "./parts/controls.js";
import { html, render, useEffect } from "./parts/html.js";
import { KeyDialog } from "./parts/key_dialog.js";
import { switchLanguage, t, useLanguage } from "./parts/language.js";
import { keepLibrary, useLibrary } from "./parts/library.js";
import { useRoute, viewHash } from "./parts/route.js";
import { HelpDialog, listenToKeys, openHelp } from "./parts/shortcuts.js";
import { ErrorLine, Loading } from "./parts/states.js";
import { switchTheme, useTheme } from "./parts/theme.js";
import { DataView } from "./views/data.js";
import { InsideView } from "./views/inside.js";
import { PlaygroundView } from "./views/playground.js";
import { RunsView } from "./views/runs.js";

/**
 * @typedef {object} ViewProps What every view gets.
 * @property {import("./parts/types.js").Library} library
 * @property {URLSearchParams} params the state of the view, from the hash
 * @property {string} look changes with theme and language, for what is drawn on a canvas
 */

/** @type {Record<string, { title: import("./parts/language.js").TextKey, View: (props: ViewProps) => any }>} */
const views = {
    runs: { title: "view.runs", View: RunsView },
    playground: { title: "view.playground", View: PlaygroundView },
    inside: { title: "view.inside", View: InsideView },
    data: { title: "view.data", View: DataView },
};

function Page() {
    const { view, params } = useRoute();
    const language = useLanguage();
    const theme = useTheme();
    const { library, problem } = useLibrary();
    const name = view in views ? view : firstView(library);
    const { title, View } = /** @type {{ title: "view.runs", View: typeof RunsView }} */ (views[name]);
    useEffect(() => {
        document.title = `${t(title)} \u00b7 tinyllm`;
    }, [title, language]);
    return html`
        <a class="skip-link" href="#main" onClick=${focusMain}>${t("skip")}</a>
        <${Header} view=${name} folder=${library?.folder ?? null} theme=${theme} />
        <main id="main" tabIndex=${-1} class=${`view view-${name}`}>
            <h1 class="visually-hidden">${t(title)}</h1>
            <${ErrorLine} problem=${problem} />
            ${library === null
                ? problem === null && html`<${Loading} />`
                : html`<${View} key=${name} library=${library} params=${params} look=${`${theme} ${language}`} />`}
        </main>
        <${HelpDialog} />
        <${KeyDialog} />
    `;
}

/** @param {import("./parts/types.js").Library | null} library */
function firstView(library) {
    return library !== null && library.runs.length === 0 && library.models.length > 0 ? "playground" : "runs";
}

/** @param {Event} event */
function focusMain(event) {
    event.preventDefault(); // the hash belongs to the views
    document.getElementById("main")?.focus();
}

/**
 * @param {{ view: string, folder: string | null, theme: string }} props
 */
function Header({ view, folder, theme }) {
    return html`<header class="page-head">
        <div class="brand">
            <svg class="brand-mark" viewBox="0 0 32 32" aria-hidden="true">
                <rect width="32" height="32" rx="8" /><path d="M7 8c2 9 5 14 18 15" /><circle cx="25" cy="23" r="3" />
            </svg>
            <span class="brand-name">tinyllm</span>
            ${folder !== null && html`<span class="brand-folder" title=${folder}>${folder}</span>`}
        </div>
        <nav class="views" aria-label=${t("views")}>
            ${Object.entries(views).map(([name, { title }]) => html`<a
                key=${name}
                href=${viewHash(name)}
                aria-current=${name === view ? "page" : undefined}
            >${t(title)}</a>`)}
        </nav>
        <div class="page-tools">
            <button type="button" class="button button-quiet" lang=${t("language.other_code")} onClick=${switchLanguage}
            >${t("language.other")}</button>
            <${Button} kind="quiet" label=${theme === "dark" ? t("theme.light") : t("theme.dark")} onClick=${switchTheme}>
                <${ThemeSign} theme=${theme} />
            <//>
            <${Button} kind="quiet" label=${t("help.title")} onClick=${openHelp}>?<//>
        </div>
    </header>`;
}

/**
 * @param {{ theme: string }} props
 */
function ThemeSign({ theme }) {
    return html`<svg class="sign" viewBox="0 0 20 20" aria-hidden="true">
        ${theme === "dark"
            ? html`<circle cx="10" cy="10" r="4" /><path d="M10 1v3M10 16v3M1 10h3M16 10h3M3.6 3.6l2.1 2.1M14.3 14.3l2.1 2.1M3.6 16.4l2.1-2.1M14.3 5.7l2.1-2.1" />`
            : html`<path d="M16.5 12.2A7 7 0 0 1 7.8 3.5a7 7 0 1 0 8.7 8.7z" />`}
    </svg>`;
}

const root = document.getElementById("app");
if (root !== null) render(html`<${Page} />`, root);
listenToKeys();
keepLibrary();
