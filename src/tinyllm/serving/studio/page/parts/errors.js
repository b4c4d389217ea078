/** The server's errors in the language of the page: by their code, with the numbers and names that came with it. */
import { t } from "./language.js";

/** Code of the server -> text of the page. The texts name the fields of `values` that each code comes with. */
const TEXTS = /** @type {const} */ ({
    context_length_exceeded: "server.context_length_exceeded",
    empty_prompt: "server.empty_prompt",
    host_not_allowed: "server.not_allowed",
    invalid_api_key: "server.invalid_api_key",
    invalid_text: "server.invalid_text",
    invalid_value: "server.invalid_value",
    model_cannot_be_loaded: "server.model_cannot_be_loaded",
    model_not_found: "server.model_not_found",
    model_not_supported: "server.model_not_supported",
    not_found: "server.not_found",
    origin_not_allowed: "server.not_allowed",
    out_of_memory: "server.out_of_memory",
    queue_full: "server.queue_full",
    refused_by_template: "server.refused_by_template",
    request_timeout: "server.request_timeout",
    request_too_large: "server.request_too_large",
    server_failed: "server.failed",
    shutting_down: "server.shutting_down",
    special_token_in_text: "server.special_token",
    string_above_max_length: "server.too_many_characters",
    text_too_long: "server.text_too_long",
    unreadable: "server.unreadable",
});

/**
 * @typedef {object} Refusal What the server said; see `ApiError`.
 * @property {string} message the server's own words
 * @property {string} code
 * @property {Record<string, string | number>} values
 */

/**
 * The line for an error: the page's own text of its code, else the server's words.
 * @param {Refusal} refusal
 */
export function explain({ message, code, values }) {
    const key = code === "context_length_exceeded" && "tokens" in values
        ? "server.too_many_tokens"
        : code in TEXTS ? TEXTS[/** @type {keyof typeof TEXTS} */ (code)] : null;
    return key === null ? message : t(key, values);
}
