/** Requests to the server, with its key if it wants one. A refused key is asked for again. */
import { createStore } from "./store.js";
import { t } from "./language.js";

const KEY_NAME = "tinyllm.key";

/** An answer of the server that refuses, or no answer. `message` is for the user. */
export class ApiError extends Error {
    /**
     * @param {string} message
     * @param {number} status the HTTP status; 0 without an answer
     * @param {string} [code]
     */
    constructor(message, status, code = "") {
        super(message);
        this.status = status;
        this.code = code;
    }
}

/**
 * @typedef {object} KeyQuestion
 * @property {boolean} refused whether a key was given and refused
 * @property {(key: string | null) => void} answer null gives up
 */

/** The question for the key that the page shows; null for none. */
export const keyQuestion = createStore(/** @type {KeyQuestion | null} */ (null));
/** @type {Promise<string | null> | null} */
let asking = null;

/** @param {boolean} refused */
function askForKey(refused) {
    asking ??= new Promise((resolve) => {
        keyQuestion.set({
            refused,
            answer(key) {
                if (key !== null) sessionStorage.setItem(KEY_NAME, key);
                keyQuestion.set(null);
                asking = null;
                resolve(key);
            },
        });
    });
    return asking;
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
        if (stored === key && (await askForKey(key !== null)) === null) throw await refusal(response);
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
        throw new ApiError(t("error.no_answer"), 0);
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
        const { error } = JSON.parse(text);
        return new ApiError(String(error.message), response.status, String(error.code ?? ""));
    } catch {
        return new ApiError(t("error.status", { status: String(response.status) }), response.status);
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
