/** Server-sent events over `fetch`, which can send the key where EventSource cannot. */
import { apiPath, ApiError, isAbort, request } from "./api.js";
import { isFinal, pause, waitAfter } from "./retry.js";

/** What ends a stream of OpenAI's interface. */
const END = "[DONE]";

/** @typedef {{ name: string, data: any }} ServerEvent */

/**
 * The events of an answer, until it ends. Throws ApiError if the connection breaks.
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
    } catch (error) {
        throw isAbort(error) || error instanceof ApiError ? error : new ApiError(String(error), 0);
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
    let attempt = 0;
    while (!signal.aborted) {
        let problem = new ApiError("", 0); // a stream that ended is opened again like one that broke
        try {
            const response = await request(path(), { signal });
            report(null);
            for await (const event of readEvents(response)) {
                attempt = 0;
                await receive(event);
            }
        } catch (error) {
            if (isAbort(error) || signal.aborted) return;
            problem = error instanceof ApiError ? error : new ApiError(String(error), 0);
            report(problem);
            if (isFinal(problem)) return;
        }
        await pause(waitAfter(problem, attempt), signal);
        attempt += 1;
    }
}
