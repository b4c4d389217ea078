/** Data that a part of the page asks the server for. */
import { isAbort } from "./api.js";
import { useEffect, useState } from "./html.js";
import { askUntilAnswered } from "./retry.js";

/**
 * @template T
 * @typedef {{ data: T | null, problem: unknown, loading: boolean }} Loaded
 * `data` stays the last answer while the next one is on its way.
 */

/**
 * The answer of `ask`, which is called again when one of `inputs` changes; the earlier request is ended then. While
 * the server does not answer, `problem` says so, and `ask` is called again (`retry.js`).
 * @template T
 * @param {((signal: AbortSignal) => Promise<T>) | null} ask null asks nothing
 * @param {unknown[]} inputs
 * @param {{ waitMs?: number }} [options] how long inputs should rest, for those that are typed
 * @returns {Loaded<T>}
 */
export function useLoaded(ask, inputs, { waitMs = 0 } = {}) {
    const [state, setState] = useState(/** @type {Loaded<T>} */ ({ data: null, problem: null, loading: ask !== null }));
    useEffect(() => {
        if (ask === null) {
            setState({ data: null, problem: null, loading: false });
            return undefined;
        }
        const controller = new AbortController();
        setState((before) => ({ ...before, loading: true }));
        const timer = setTimeout(async () => {
            try {
                const report = (/** @type {unknown} */ problem) => setState({ data: null, problem, loading: false });
                const data = await askUntilAnswered(() => ask(controller.signal), controller.signal, report);
                setState({ data, problem: null, loading: false });
            } catch (problem) {
                if (!isAbort(problem)) setState({ data: null, problem, loading: false });
            }
        }, waitMs);
        return () => {
            clearTimeout(timer);
            controller.abort();
        };
    }, inputs);
    return state;
}
