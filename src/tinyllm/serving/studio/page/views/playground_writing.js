/** Tokens of a branch from the server. Errors are kept in the branch, which keeps its settings: it can be written again. */
import { ApiError, apiError, isAbort } from "../parts/api.js";
import { postForEvents } from "../parts/events.js";
import { readableIds } from "../parts/library.js";
import { pathTokens } from "../parts/play_tree.js";
import { isFinal } from "../parts/retry.js";

/** @typedef {import("../parts/play_types.js").Branch} Branch */
/** @typedef {import("../parts/play_types.js").Sample} Sample */

const NUM_RIVALS = 10;
/** The status of an error that comes after the head of an answer. */
const STREAM_BROKE = 500;

/** @type {WeakMap<Branch, AbortController>} */
const controllers = new WeakMap();

/** Ends the writing of a branch, if it is written. @param {Branch} branch */
export function stopBranch(branch) {
    controllers.get(branch)?.abort();
}

/**
 * Whether a branch failed for a reason that may pass by itself.
 * @param {Branch} branch
 */
export function mayMend({ state, problem, removed }) {
    return !removed && state === "failed" && problem instanceof ApiError && !isFinal(problem);
}

/**
 * Receives the tokens of a branch, from its start.
 * @param {Sample} sample
 * @param {Branch} branch
 * @param {string} prompt
 * @param {() => void} redraw called after every change
 */
export async function receiveTokens(sample, branch, prompt, redraw) {
    const controller = new AbortController();
    controllers.set(branch, controller);
    branch.tokens = branch.tokens.slice(0, branch.token === null ? 0 : 1);
    Object.assign(branch, { state: "writing", problem: null, reason: "" });
    redraw();
    try {
        const body = requestBody(sample, branch, prompt);
        if (body.max_tokens > 0) {
            for await (const event of postForEvents("generate", body, controller.signal)) {
                receive(sample, branch, event);
                redraw();
            }
            // An answer that ends before its last event comes from a server that ended.
            if (branch.state === "writing" && branch.reason === "") throw new ApiError("", 0);
        }
        if (branch.state === "writing") branch.state = "done";
    } catch (problem) {
        branch.state = isAbort(problem) ? "stopped" : "failed";
        branch.problem = isAbort(problem) ? null : problem;
    }
    // The link of a text that was stopped asks for as many tokens as it has; one that failed is written again.
    if (branch.state === "stopped") branch.settings = { ...branch.settings, max_tokens: ownNew(branch) };
    redraw();
}

/**
 * The tokens of a branch that the model drew.
 * @param {Branch} branch
 */
function ownNew({ tokens, token }) {
    return tokens.length - (token === null ? 0 : 1);
}

/**
 * @param {Sample} sample
 * @param {Branch} branch
 * @param {string} prompt
 * @returns {Record<string, any> & { max_tokens: number }}
 */
function requestBody(sample, branch, prompt) {
    const { settings } = branch;
    const common = { model: sample.model, ...settings, seed: settings.seed + sample.offset, rivals: NUM_RIVALS };
    // A text that was stopped before its first token has no ids of the prompt.
    if (branch.parent === null || sample.prompt.length === 0) return { ...common, prompt };
    const before = pathTokens(sample.branches, branch.parent).slice(0, branch.start);
    const ids = [...sample.prompt, ...before, ...branch.tokens].map(({ id }) => id);
    return { ...common, tokens: readableIds(ids, sample.model) };
}

/**
 * @param {Sample} sample
 * @param {Branch} branch
 * @param {import("../parts/events.js").ServerEvent} event
 */
function receive(sample, branch, { name, data }) {
    if (name === "prompt" && (branch.parent === null || sample.prompt.length === 0)) sample.prompt = data.tokens;
    else if (name === "token") branch.tokens.push(data);
    else if (name === "done") {
        branch.reason = data.reason ?? "";
        branch.speed = data.tokens_per_second;
        branch.commands = data.command;
    } else if (name === "error") {
        branch.state = "failed";
        branch.problem = apiError(data.error ?? data, STREAM_BROKE);
    }
}
