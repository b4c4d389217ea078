/**
 * The state of a view, kept in `location.hash`: `#/runs?run=a&run=b&x=tokens`. A link reproduces what is seen.
 *
 * Defaults are left out of the hash. Each view's last state is kept, so that a view looks the same on return.
 */
import { createStore, useStore } from "./store.js";

/** @typedef {{ view: string, params: URLSearchParams }} Route */
/** @typedef {Record<string, string | string[] | null>} Changes Values by name; null or "" removes one. */

/**
 * @param {string} hash
 * @returns {Route}
 */
export function readRoute(hash) {
    const [path, query] = splitOnce(hash.replace(/^#\/?/, ""), "?");
    return { view: path || "", params: new URLSearchParams(query) };
}

/**
 * @param {string} view
 * @param {URLSearchParams} params
 */
export function writeRoute(view, params) {
    const query = params.toString();
    return `#/${view}${query && `?${query}`}`;
}

/**
 * @param {string} text
 * @param {string} separator
 */
function splitOnce(text, separator) {
    const place = text.indexOf(separator);
    return place < 0 ? [text, ""] : [text.slice(0, place), text.slice(place + separator.length)];
}

const route = createStore(readRoute(location.hash));
/** @type {Map<string, string>} */
const lastHashes = new Map();

addEventListener("hashchange", () => route.set(readRoute(location.hash)));
route.subscribe(() => lastHashes.set(route.get().view, location.hash));

/** The route that the page shows. */
export function useRoute() {
    return useStore(route);
}

/**
 * The hash that shows a view as it was seen last.
 * @param {string} view
 */
export function viewHash(view) {
    return lastHashes.get(view) ?? `#/${view}`;
}

/**
 * Shows a view as it was seen last.
 * @param {string} view
 */
export function showView(view) {
    location.hash = viewHash(view);
}

/**
 * Changes the state of the view that is shown. `push` adds an entry to the browser's history.
 * @param {Changes} changes
 * @param {{ push?: boolean }} [options]
 */
export function changeState(changes, { push = false } = {}) {
    const { view, params } = readRoute(location.hash);
    const next = new URLSearchParams(params);
    for (const [name, value] of Object.entries(changes)) {
        next.delete(name);
        for (const each of Array.isArray(value) ? value : [value]) {
            if (each !== null && each !== "") next.append(name, each);
        }
    }
    const hash = writeRoute(view || route.get().view, next);
    if (hash === location.hash) return;
    history[push ? "pushState" : "replaceState"](null, "", hash);
    route.set(readRoute(hash));
}

/**
 * A number of the state, within its limits.
 * @param {URLSearchParams} params
 * @param {string} name
 * @param {number} fallback
 * @param {number} least
 * @param {number} most
 */
export function numberParam(params, name, fallback, least, most) {
    const text = params.get(name);
    const value = text === null || text.trim() === "" ? NaN : Number(text);
    return Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : fallback;
}

/**
 * One of several words of the state, else the first.
 * @template {string} T
 * @param {URLSearchParams} params
 * @param {string} name
 * @param {readonly T[]} words
 * @returns {T}
 */
export function wordParam(params, name, words) {
    const text = params.get(name);
    return words.find((word) => word === text) ?? /** @type {T} */ (words[0]);
}
