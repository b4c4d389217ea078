/**
 * When a request that failed is sent again: after a growing wait, when the server is back, or when the user asks.
 *
 * A wrong request (4xx) stays wrong; a server that ended, is full or failed may answer later.
 */
import { ApiError, isAbort } from "./api.js";
import { createStore } from "./store.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;
/** Statuses that pass by themselves: no answer, a timeout, too many requests, a server that is full, starts or ends. */
const PASSING = [0, 408, 425, 429, 502, 503, 504];
const NO_KEY = 401;

/** Counts the reasons to ask again at once. */
const occasions = createStore(0);

/** Sends every request that waits for its next attempt. */
export function retryNow() {
    occasions.set(occasions.get() + 1);
}

/** Calls a function at every reason to ask again at once. @param {() => void} listener */
export function onRetry(listener) {
    occasions.subscribe(listener);
}

/**
 * Whether a request that was refused this way is refused always.
 * @param {ApiError} problem
 */
export function isFinal({ status }) {
    return !PASSING.includes(status) && status !== NO_KEY && status < 500;
}

/**
 * The wait before the next attempt in milliseconds; Infinity if only the user, or the server's return, can mend it.
 * @param {ApiError} problem
 * @param {number} attempt from 0
 */
export function waitAfter({ status }, attempt) {
    return PASSING.includes(status) ? waitMs(attempt) : Infinity;
}

/**
 * The answer of `ask`, which is asked until it answers or refuses for good. Throws that refusal, or an abort.
 * @template T
 * @param {() => Promise<T>} ask
 * @param {AbortSignal} signal
 * @param {(problem: ApiError) => void} report called with every failure that the next attempt may mend
 * @returns {Promise<T>}
 */
export async function askUntilAnswered(ask, signal, report) {
    for (let attempt = 0; ; attempt++) {
        try {
            return await ask();
        } catch (problem) {
            if (isAbort(problem) || !(problem instanceof ApiError) || isFinal(problem)) throw problem;
            report(problem);
            await pause(waitAfter(problem, attempt), signal);
            signal.throwIfAborted();
        }
    }
}

/**
 * The wait after some failed attempts, in milliseconds: doubled each time, up to a longest one.
 * @param {number} attempt from 0
 */
export function waitMs(attempt) {
    return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** attempt);
}

/**
 * Waits; ends early at `retryNow` and at the end of `signal`.
 * @param {number} milliseconds Infinity waits for these alone
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function pause(milliseconds, signal) {
    return new Promise((resolve) => {
        const end = () => {
            clearTimeout(timer);
            unsubscribe();
            signal.removeEventListener("abort", end);
            resolve();
        };
        const timer = milliseconds === Infinity ? 0 : setTimeout(end, milliseconds);
        const unsubscribe = occasions.subscribe(end);
        signal.addEventListener("abort", end);
        if (signal.aborted) end();
    });
}
