/** A conversation with a model, and the link that reproduces it: what the user said, and the settings of each answer. */
import { apiError, isAbort, request } from "../parts/api.js";
import { readEvents } from "../parts/events.js";
import { readSet, writeSet } from "../parts/play_link.js";
import { changeState } from "../parts/route.js";
import { createStore } from "../parts/store.js";

/** @typedef {import("../parts/play_types.js").Settings} Settings */
/** @typedef {import("../parts/play_types.js").Rival} Rival */
/** @typedef {import("../parts/shaded_text.js").ShadedToken} ShadedToken */
/**
 * @typedef {object} Turn
 * @property {string} user
 * @property {Settings} settings
 * @property {ShadedToken[]} tokens
 * @property {string} answer
 * @property {"writing" | "done" | "stopped" | "failed"} state
 * @property {unknown} problem
 */

const NUM_RIVALS = 10;
const MOST_TURNS = 32;

export const chat = createStore({ model: "", turns: /** @type {Turn[]} */ ([]) });
let controller = new AbortController();
let shownKey = "";
let drawing = false;

function redraw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
        drawing = false;
        chat.set({ ...chat.get() });
    });
}

/**
 * The body of a chat request for the turns up to the last one.
 * @param {string} model
 * @param {Turn[]} turns
 */
export function chatBody(model, turns) {
    const last = /** @type {Turn} */ (turns.at(-1));
    const messages = turns.flatMap(({ user, answer }, place) => [
        { role: "user", content: user },
        ...(place === turns.length - 1 ? [] : [{ role: "assistant", content: answer }]),
    ]);
    return { model, messages, ...last.settings };
}

/**
 * Says something and receives the answer. Errors are kept in the turn.
 * @param {string} model
 * @param {string} user
 * @param {Settings} settings
 */
export async function say(model, user, settings) {
    /** @type {Turn} */
    const turn = { user, settings, tokens: [], answer: "", state: "writing", problem: null };
    const before = chat.get().model === model ? chat.get().turns : [];
    const turns = [...before, turn].slice(-MOST_TURNS);
    chat.set({ model, turns });
    controller = new AbortController();
    try {
        const body = { ...chatBody(model, turns), stream: true, logprobs: true, top_logprobs: NUM_RIVALS };
        const response = await request("/v1/chat/completions", { method: "POST", body, signal: controller.signal });
        for await (const { data } of readEvents(response)) receive(turn, data);
        if (turn.state === "writing") turn.state = "done";
    } catch (problem) {
        turn.state = isAbort(problem) ? "stopped" : "failed";
        turn.problem = isAbort(problem) ? null : problem;
    }
    if (turn.state === "stopped" && turn.tokens.length > 0) turn.settings = { ...settings, max_tokens: turn.tokens.length };
    redraw();
    if (chat.get().turns === turns) keepLink();
}

/**
 * @param {Turn} turn
 * @param {any} data
 */
function receive(turn, data) {
    if (data.error) {
        turn.state = "failed";
        turn.problem = apiError(data.error, 500);
    }
    const choice = data.choices?.[0];
    turn.answer += choice?.delta?.content ?? "";
    turn.tokens.push(...(choice?.logprobs?.content ?? []).map(shadedToken));
    redraw();
}

/**
 * A token of the chat interface, whose tokens have no ids: the place among the candidates stands for one.
 * @param {{ token: string, logprob: number, bytes: number[], top_logprobs: any[] }} found
 * @returns {ShadedToken}
 */
function shadedToken(found) {
    const others = found.top_logprobs.filter((each) => each.token !== found.token || String(each.bytes) !== String(found.bytes));
    const all = [found, ...others].map((each, id) => ({ id, piece: each.token, bytes: hexOf(each), logprob: each.logprob }));
    const own = /** @type {Rival} */ (all[0]);
    return { ...own, candidates: [...all].sort((a, b) => b.logprob - a.logprob) };
}

/** @param {{ token: string, bytes: number[] }} token */
function hexOf({ token, bytes }) {
    return token.includes("\ufffd") ? bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("") : undefined;
}

export function stopChat() {
    controller.abort();
}

/** Begins a new conversation. */
export function clearChat() {
    stopChat();
    chat.set({ model: "", turns: [] });
    keepLink();
}

/** Whether an answer is being written. */
export function isAnswering() {
    return chat.get().turns.at(-1)?.state === "writing";
}

function keepLink() {
    const { turns } = chat.get();
    const said = turns.filter(({ state }) => state !== "failed").map(({ user, settings }) => `${writeSet(settings)} ${user}`);
    shownKey = JSON.stringify([chat.get().model, said]);
    changeState({ say: said.length > 0 ? said : null });
}

/**
 * Holds the conversation of a link again, unless it is there.
 * @param {URLSearchParams} params
 * @param {string} model
 */
export async function showChat(params, model) {
    const said = params.getAll("say").slice(0, MOST_TURNS);
    const key = JSON.stringify([said.length > 0 ? model : "", said]);
    if (key === shownKey || isAnswering() || (said.length === 0 && chat.get().turns.length === 0)) return;
    shownKey = key;
    chat.set({ model, turns: [] });
    for (const text of said) {
        const [set = "", ...words] = text.split(" ");
        await say(model, words.join(" "), readSet(set));
        if (chat.get().turns.at(-1)?.state !== "done") return;
    }
}
