/** What is shown in place of content: nothing there, still loading, an error. */
import { ApiError, askForKeyAgain } from "./api.js";
import { html, useId, useLayoutEffect } from "./html.js";
import { t } from "./language.js";
import { isFinal, retryNow } from "./retry.js";
import { createStore, useStore } from "./store.js";

/** @typedef {import("./html.js").Children} Children */
/** @typedef {{ id: string, text: string }} ShownError */

/** The errors of the page, in the order in which they came. Several parts of a view may fail for one reason. */
const shownErrors = createStore(/** @type {ShownError[]} */ ([]));

/**
 * @param {{ title: string, children?: Children }} props
 */
export function Empty({ title, children }) {
    return html`<div class="empty">
        <svg class="empty-mark" viewBox="0 0 66 32" aria-hidden="true">
            <path d="M2 4c6 16 16 22 60 24" /><circle cx="62" cy="28" r="2" />
        </svg>
        <h2>${title}</h2>
        <div class="empty-text">${children}</div>
    </div>`;
}

export function Loading() {
    return html`<p class="loading" role="status"><span class="spinner" aria-hidden="true"></span>${t("loading")}</p>`;
}

/**
 * The line for the error of a request that the page sends again, with a button that sends it at once; nothing without
 * an error. An error that another line of the page shows already is not shown again.
 * @param {{ problem: unknown }} props
 */
export function ErrorLine({ problem }) {
    const id = useId();
    const text = problem === null || problem === undefined ? "" : errorText(problem);
    const first = useStore(shownErrors).find((each) => each.text === text);
    useLayoutEffect(() => {
        if (text === "") return undefined;
        shownErrors.set([...shownErrors.get(), { id, text }]);
        return () => shownErrors.set(shownErrors.get().filter((each) => each.id !== id));
    }, [text]);
    if (text === "" || (first !== undefined && first.id !== id)) return null;
    return html`<${ErrorText} text=${text}><${Remedy} problem=${problem} /><//>`;
}

/**
 * The line for an error of one text or answer, with what can be done about it.
 * @param {{ problem: unknown, text?: string, children?: Children }} props `text` stands in place of the error's own
 */
export function TextError({ problem, text, children }) {
    if (problem === null || problem === undefined) return null;
    return html`<${ErrorText} text=${text ?? errorText(problem)}>${children}<//>`;
}

/** @param {{ text: string, children?: Children }} props */
function ErrorText({ text, children }) {
    return html`<div class="error-line" role="alert"><p><strong>${t("error.label")}</strong> ${text}</p>${children}</div>`;
}

/** The button that mends an error, if one can. @param {{ problem: unknown }} props */
function Remedy({ problem }) {
    if (!(problem instanceof ApiError) || isFinal(problem)) return null;
    const noKey = problem.status === 401;
    const press = async () => {
        if (!noKey || (await askForKeyAgain())) retryNow();
    };
    return html`<button type="button" class="button" onClick=${press}>${noKey ? t("key.enter") : t("error.again")}</button>`;
}

/** @param {unknown} problem */
export function errorText(problem) {
    if (problem instanceof ApiError) return problem.text;
    return problem instanceof Error ? `${problem.name}: ${problem.message}` : String(problem);
}
