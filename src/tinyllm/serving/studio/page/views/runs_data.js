/** The data of the runs that are shown: asked for once, and followed by events while a run goes on. */
import { apiPath, get, isAbort } from "../parts/api.js";
import { followEvents } from "../parts/events.js";
import { useEffect, useRef, useState } from "../parts/html.js";
import { askUntilAnswered } from "../parts/retry.js";
import { appendColumns } from "../parts/series.js";

/** @typedef {import("../parts/types.js").Metrics} Metrics */
/** @typedef {import("../parts/types.js").Run} Run */
/** @typedef {import("../parts/types.js").RunSummary} RunSummary */

/**
 * @typedef {object} ShownRun
 * @property {string} id
 * @property {string} name
 * @property {string} color name of a custom property
 * @property {Run | null} run
 * @property {Metrics | null} metrics
 * @property {number} numSamples events of samples that came; a change asks for samples again
 * @property {unknown} problem
 */

const NUM_POINTS = 1500;
/** A browser opens six connections to a server; some stay free for requests. */
const MOST_STREAMS = 4;
/** More points than this are asked for anew, so that the server thins them out and memory stays bounded. */
const MOST_POINTS = 4 * NUM_POINTS;

/**
 * The runs with the given ids, in that order. Each keeps its colour.
 * @param {string[]} ids
 * @param {RunSummary[]} summaries
 * @returns {ShownRun[]}
 */
export function useRuns(ids, summaries) {
    const [shown, setShown] = useState(/** @type {Record<string, ShownRun>} */ ({}));
    const followers = useRef(/** @type {Map<string, AbortController>} */ (new Map()));
    const running = summaries.filter((run) => run.state === "running").map((run) => run.id);
    const streamed = ids.filter((id) => running.includes(id)).slice(0, MOST_STREAMS);

    useEffect(() => {
        /** @param {string} id @param {(run: ShownRun) => ShownRun} change */
        const update = (id, change) =>
            setShown((before) => ({ ...before, [id]: change(before[id] ?? emptyRun(id)) }));
        const wanted = new Map(ids.map((id) => [`${id} ${streamed.includes(id) ? "live" : "once"}`, id]));
        for (const [key, controller] of followers.current) {
            if (!wanted.has(key)) {
                controller.abort();
                followers.current.delete(key);
            }
        }
        for (const [key, id] of wanted) {
            if (followers.current.has(key)) continue;
            const controller = new AbortController();
            followers.current.set(key, controller);
            loadRun(id, key.endsWith(" live"), controller.signal, (change) => update(id, change));
        }
    }, [ids.join("\n"), streamed.join("\n")]);
    useEffect(() => () => followers.current.forEach((controller) => controller.abort()), []);

    return ids.map((id, place) => ({
        ...(shown[id] ?? emptyRun(id)),
        name: summaries.find((run) => run.id === id)?.name ?? id,
        color: `--series-${place + 1}`,
    }));
}

/**
 * @param {string} id
 * @returns {ShownRun}
 */
function emptyRun(id) {
    return { id, name: id, color: "--series-1", run: null, metrics: null, numSamples: 0, problem: null };
}

/**
 * @param {string} id
 * @param {boolean} live
 * @param {AbortSignal} signal
 * @param {(change: (run: ShownRun) => ShownRun) => void} update
 */
async function loadRun(id, live, signal, update) {
    try {
        const ask = () => Promise.all([get("run", { id }, signal), askMetrics(id, signal)]);
        const report = (/** @type {unknown} */ problem) => update((before) => ({ ...before, problem }));
        const [run, metrics] = await askUntilAnswered(ask, signal, report);
        update((before) => ({ ...before, run, metrics, problem: null }));
        if (live) await followRun(id, metrics.cursor, signal, update);
    } catch (problem) {
        if (!isAbort(problem)) update((before) => ({ ...before, problem }));
    }
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 * @returns {Promise<Metrics>}
 */
function askMetrics(id, signal) {
    return get("metrics", { id, points: NUM_POINTS }, signal);
}

/**
 * @param {string} id
 * @param {string} cursor
 * @param {AbortSignal} signal
 * @param {(change: (run: ShownRun) => ShownRun) => void} update
 */
async function followRun(id, cursor, signal, update) {
    let points = 0;
    const path = () => apiPath("run/events", { id, cursor });
    await followEvents(path, signal, async ({ name, data }) => {
        if (name === "restart") {
            cursor = (await askAgain(id, signal, update)) ?? cursor; // the log was rewritten from an earlier step
        } else if (name === "metrics") {
            cursor = data.cursor;
            points += data.training.step.length;
            update((before) => ({ ...before, metrics: before.metrics && addMetrics(before.metrics, data) }));
            if (points > MOST_POINTS - NUM_POINTS) {
                points = 0;
                cursor = (await askAgain(id, signal, update)) ?? cursor;
            }
        } else if (name === "samples") {
            update((before) => ({ ...before, numSamples: before.numSamples + 1 }));
        } else if (name === "state") {
            update((before) => ({ ...before, run: data }));
        }
    }, (problem) => update((before) => ({ ...before, problem })));
}

/**
 * Replaces the metrics by those that the server has, and returns their cursor; null if the server does not answer.
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(change: (run: ShownRun) => ShownRun) => void} update
 * @returns {Promise<string | null>}
 */
async function askAgain(id, signal, update) {
    try {
        const metrics = await askMetrics(id, signal);
        update((before) => ({ ...before, metrics }));
        return metrics.cursor;
    } catch (problem) {
        if (!isAbort(problem)) update((before) => ({ ...before, problem }));
        return null;
    }
}

/**
 * @param {Metrics} metrics
 * @param {Metrics} added
 * @returns {Metrics}
 */
function addMetrics(metrics, added) {
    return {
        training: appendColumns(metrics.training, added.training),
        evaluation: appendColumns(metrics.evaluation, added.evaluation),
        num_lines: metrics.num_lines + added.training.step.length,
        cursor: added.cursor,
    };
}
