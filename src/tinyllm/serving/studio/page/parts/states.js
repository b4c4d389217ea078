/** What is shown in place of content: nothing there, still loading, an error. */
import { ApiError } from "./api.js";
import { html } from "./html.js";
import { t } from "./language.js";

/** @typedef {import("./html.js").Children} Children */

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
 * The line for an error; nothing without one.
 * @param {{ problem: unknown }} props
 */
export function ErrorLine({ problem }) {
    if (problem === null || problem === undefined) return null;
    return html`<p class="error-line" role="alert"><strong>${t("error.label")}</strong> ${errorText(problem)}</p>`;
}

/** @param {unknown} problem */
export function errorText(problem) {
    if (problem instanceof ApiError) return problem.message;
    return problem instanceof Error ? `${problem.name}: ${problem.message}` : String(problem);
}
