/** What the server found: models, runs, shards and tokenizers, asked for again every few seconds. */
import { get, isAbort, keyMissing } from "./api.js";
import { pause, retryNow } from "./retry.js";
import { createStore, useStore } from "./store.js";

/** @typedef {import("./types.js").Library} Library */

const INTERVAL_MS = 5000;
const forever = new AbortController().signal;

const library = createStore(/** @type {Library | null} */ (null));
const problem = createStore(/** @type {unknown} */ (null));
let lastText = "";

/** Asks the server once. An answer that is the same as before changes nothing. */
export async function refreshLibrary() {
    try {
        const found = await get("library");
        for (const list of [found.models, found.runs, found.shards, found.tokenizers]) distinguishNames(list);
        const text = JSON.stringify(found);
        if (text !== lastText) library.set(found);
        lastText = text;
        if (problem.get() !== null) retryNow(); // the server is back
        problem.set(null);
    } catch (error) {
        if (!isAbort(error)) problem.set(error);
    }
}

/**
 * Names that several places have become their ids, which are paths.
 * @param {{ id: string, name: string }[]} items
 */
function distinguishNames(items) {
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const { name } of items) counts.set(name, (counts.get(name) ?? 0) + 1);
    for (const item of items) if ((counts.get(item.name) ?? 0) > 1) item.name = item.id;
}

/** Asks the server while the page is seen, for as long as the page is open. */
export async function keepLibrary() {
    for (;;) {
        if (!document.hidden && !keyMissing.get()) await refreshLibrary();
        await pause(INTERVAL_MS, forever);
    }
}

/** The library, null before the first answer; and the error of the last question. */
export function useLibrary() {
    return { library: useStore(library), problem: useStore(problem) };
}

/**
 * The last token ids of a text that a model can read.
 * @param {number[]} ids
 * @param {string} model
 */
export function readableIds(ids, model) {
    const length = library.get()?.models.find(({ id }) => id === model)?.context_length ?? ids.length;
    return ids.slice(-length);
}

/**
 * The model that a view begins with; undefined without models.
 * @param {Library} found
 */
export function firstModel({ models, first_model: first }) {
    return models.find(({ id }) => id === first)?.id ?? models[0]?.id;
}
