/** Server-sent events over `fetch`, which can send the key where EventSource cannot. */
import { apiPath, ApiError, isAbort, request } from "./api.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;
/** What ends a stream of OpenAI's interface. */
const END = "[DONE]";

/** @typedef {{ name: string, data: any }} ServerEvent */

/**
 * The events of an answer, until it ends.
 * @param {Response} response
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* readEvents(response) {
    if (response.body === null) return;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
        for (;;) {
            const { value, done } = await reader.read();
            if (done) return;
            const blocks = (rest + value).split("\n\n");
            rest = blocks.pop() ?? "";
            for (const block of blocks) {
                const event = parseEvent(block);
                if (event !== null) yield event;
            }
        }
    } finally {
        await reader.cancel().catch(() => undefined); // an aborted request refuses this too
    }
}

/**
 * The event in a block of lines; null if it only keeps the connection alive.
 * @param {string} block
 * @returns {ServerEvent | null}
 */
export function parseEvent(block) {
    let name = "message";
    /** @type {string[]} */
    const data = [];
    for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
    const text = data.join("\n");
    return text === "" || text === END ? null : { name, data: JSON.parse(text) };
}

/**
 * Sends a body to a path of `/studio/api/` and yields the events of the answer. Throws ApiError.
 * @param {string} name
 * @param {unknown} body
 * @param {AbortSignal} signal
 */
export async function* postForEvents(name, body, signal) {
    yield* readEvents(await request(apiPath(name), { method: "POST", body, signal }));
}

/**
 * Follows a stream that goes on for ever, and connects again when it breaks. Ends with `signal`.
 * @param {() => string} path the path of the next connection; it names what was received
 * @param {AbortSignal} signal
 * @param {(event: ServerEvent) => void | Promise<void>} receive
 * @param {(problem: ApiError | null) => void} report null when the stream works
 */
export async function followEvents(path, signal, receive, report) {
    let wait = FIRST_WAIT_MS;
    while (!signal.aborted) {
        try {
            const response = await request(path(), { signal });
            report(null);
            for await (const event of readEvents(response)) {
                wait = FIRST_WAIT_MS;
                await receive(event);
            }
        } catch (error) {
            if (isAbort(error) || signal.aborted) return;
            if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
                report(error);
                return;
            }
            report(error instanceof ApiError ? error : new ApiError(String(error), 0));
        }
        await pause(wait, signal);
        wait = Math.min(LONGEST_WAIT_MS, wait * 2);
    }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(milliseconds, signal) {
    return new Promise((resolve) => {
        const timer = setTimeout(resolve, milliseconds);
        signal.addEventListener("abort", () => {
            clearTimeout(timer);
            resolve();
        });
    });
}
