/** Requests to the server, with its key if it wants one. A refused key is asked for again. */
import { explain } from "./errors.js";
import { t } from "./language.js";
import { createStore } from "./store.js";

const KEY_NAME = "tinyllm.key";

/** An answer of the server that refuses, or no answer. `text` is for the user, `message` is the server's. */
export class ApiError extends Error {
    /**
     * @param {string} message
     * @param {number} status the HTTP status; 0 without an answer
     * @param {string} [code]
     * @param {Record<string, string | number>} [values] numbers and names of the message
     */
    constructor(message, status, code = "", values = {}) {
        super(message);
        this.status = status;
        this.code = code;
        this.values = values;
    }

    /** The line for the user, in the page's language. */
    get text() {
        if (this.status === 0) return t("error.no_answer");
        return this.message === "" ? t("error.status", { status: String(this.status) }) : explain(this);
    }
}

/**
 * The error that a part of an answer describes, as the event `error` does.
 * @param {any} error the server's error object
 * @param {number} status
 */
export function apiError(error, status) {
    return new ApiError(String(error?.message ?? ""), status, String(error?.code ?? ""), error?.values ?? {});
}

/**
 * @typedef {object} KeyQuestion
 * @property {boolean} refused whether a key was given and refused
 * @property {(key: string | null) => void} answer null gives up
 */

/** The question for the key that the page shows; null for none. */
export const keyQuestion = createStore(/** @type {KeyQuestion | null} */ (null));
/** Whether the user has closed the question without a key. It is not asked again until `askForKeyAgain`. */
export const keyMissing = createStore(false);
/** @type {Promise<string | null> | null} */
let asking = null;

/** @param {boolean} refused */
function askForKey(refused) {
    asking ??= new Promise((resolve) => {
        keyQuestion.set({
            refused,
            answer(key) {
                if (key !== null) sessionStorage.setItem(KEY_NAME, key);
                keyMissing.set(key === null);
                keyQuestion.set(null);
                asking = null;
                resolve(key);
            },
        });
    });
    return asking;
}

/** Shows the question for the key that the user closed. @returns {Promise<boolean>} whether there is a key */
export async function askForKeyAgain() {
    return (await askForKey(false)) !== null;
}

/**
 * The server's answer to a request. Asks the user for the key where one is needed. Throws ApiError.
 * @param {string} path
 * @param {{ method?: string, body?: unknown, signal?: AbortSignal | undefined }} [options]
 * @returns {Promise<Response>}
 */
export async function request(path, { method = "GET", body, signal } = {}) {
    for (;;) {
        const key = sessionStorage.getItem(KEY_NAME);
        const response = await send(path, method, body, key, signal);
        if (response.ok) return response;
        if (response.status !== 401) throw await refusal(response);
        const stored = sessionStorage.getItem(KEY_NAME);
        if (stored !== key) continue; // another request asked meanwhile
        if (keyMissing.get() || (await askForKey(key !== null)) === null) throw await refusal(response);
    }
}

/**
 * @param {string} path
 * @param {string} method
 * @param {unknown} body
 * @param {string | null} key
 * @param {AbortSignal | undefined} signal
 */
async function send(path, method, body, key, signal) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (key !== null) headers["Authorization"] = `Bearer ${encodeURIComponent(key) === key ? key : toLatin(key)}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    try {
        return await fetch(path, {
            method,
            headers,
            body: body === undefined ? null : JSON.stringify(body),
            signal: signal ?? null,
            credentials: "omit",
            cache: "no-store",
        });
    } catch (error) {
        if (isAbort(error)) throw error;
        throw new ApiError(String(error), 0);
    }
}

/**
 * The UTF-8 bytes of a key as the characters that a header may have.
 * @param {string} key
 */
function toLatin(key) {
    return String.fromCharCode(...new TextEncoder().encode(key));
}

/** @param {Response} response */
async function refusal(response) {
    const text = await response.text();
    try {
        return apiError(JSON.parse(text).error, response.status);
    } catch {
        return new ApiError("", response.status); // a proxy's own page, for instance
    }
}

/**
 * Whether an error only says that the page ended the request itself.
 * @param {unknown} error
 */
export function isAbort(error) {
    return error instanceof DOMException && error.name === "AbortError";
}

/**
 * The JSON at a path of `/studio/api/`. Values that are null are left out of the query.
 * @param {string} name
 * @param {Record<string, string | number | null>} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(name, query = {}, signal = undefined) {
    return (await request(apiPath(name, query), { signal })).json();
}

/**
 * The JSON that answers a JSON body sent to a path of `/studio/api/`.
 * @param {string} name
 * @param {unknown} body
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function post(name, body, signal = undefined) {
    return (await request(apiPath(name), { method: "POST", body, signal })).json();
}

/**
 * @param {string} name
 * @param {Record<string, string | number | null>} [query]
 */
export function apiPath(name, query = {}) {
    const params = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) if (value !== null) params.set(key, String(value));
    const text = params.toString();
    return `/studio/api/${name}${text && `?${text}`}`;
}
