/**
 * A conversation with a model, and the link that reproduces it: what the user said, and the settings of each answer.
 *
 * A turn without an answer is no part of the conversation: neither the model nor a command reads it. The link has it
 * only behind the last answer, where it is asked again.
 */
import { ApiError, apiError, isAbort, request } from "../parts/api.js";
import { decoded } from "../parts/characters.js";
import { readEvents } from "../parts/events.js";
import { readSet, writeSet } from "../parts/play_link.js";
import { isFinal, onRetry } from "../parts/retry.js";
import { changeState, readRoute } from "../parts/route.js";
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
 * @property {"waiting" | "writing" | "done" | "stopped" | "failed"} state a waiting one comes from a link
 * @property {string} reason why the answer ended
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
 * Whether a turn is a part of the conversation: it has an answer, or the model writes one.
 * @param {Turn} turn
 */
export function isSaid({ state, tokens }) {
    return state === "done" || state === "writing" || (state === "stopped" && tokens.length > 0);
}

/**
 * The turns of a conversation up to one, and it.
 * @param {Turn[]} turns
 * @param {Turn} last
 */
function conversation(turns, last) {
    return [...turns.slice(0, turns.indexOf(last)).filter(isSaid), last];
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
 * @param {string} user
 * @param {Settings} settings
 * @returns {Turn}
 */
function newTurn(user, settings) {
    return { user, settings, tokens: [], answer: "", state: "waiting", reason: "", problem: null };
}

/**
 * Says something and receives the answer.
 * @param {string} model
 * @param {string} user
 * @param {Settings} settings
 */
export async function say(model, user, settings) {
    const turn = newTurn(user, settings);
    const before = chat.get().model === model ? chat.get().turns : [];
    for (const each of before) if (each.state === "waiting") each.state = "failed"; // the user goes on without it
    chat.set({ model, turns: [...before, turn].slice(-MOST_TURNS) });
    await answer(turn);
}

/**
 * Asks again for an answer that failed. A turn before other answers, which were given without it, becomes the last.
 * @param {Turn} turn
 */
export async function sayAgain(turn) {
    if (isAnswering()) return;
    const { model, turns } = chat.get();
    const place = turns.indexOf(turn);
    if (turns.slice(place).some(isSaid)) chat.set({ model, turns: [...turns.filter((each) => each !== turn), turn] });
    if (await answer(turn)) await answerWaiting();
}

/**
 * Takes a turn out of the conversation, and returns what the user said.
 * @param {Turn} turn
 */
export function takeBack(turn) {
    const { model, turns } = chat.get();
    chat.set({ model, turns: turns.filter((each) => each !== turn) });
    keepLink();
    return turn.user;
}

/** Asks for the answers that a link waits for, one after another, until one fails. */
async function answerWaiting() {
    for (;;) {
        const next = chat.get().turns.find(({ state }) => state === "waiting");
        if (next === undefined || !(await answer(next))) return;
    }
}

/**
 * Receives the answer of a turn; returns whether it came. Errors are kept in the turn.
 * @param {Turn} turn
 */
async function answer(turn) {
    const { model, turns } = chat.get();
    const fresh = newTurn(turn.user, turn.settings);
    Object.assign(turn, fresh, { state: "writing" });
    controller = new AbortController();
    redraw();
    try {
        const body = { ...chatBody(model, conversation(turns, turn)), stream: true, logprobs: true, top_logprobs: NUM_RIVALS };
        const response = await request("/v1/chat/completions", { method: "POST", body, signal: controller.signal });
        for await (const { data } of readEvents(response)) receive(turn, data);
        if (turn.state === "writing" && turn.reason === "") throw new ApiError("", 0); // the server ended
        if (turn.state === "writing") turn.state = "done";
    } catch (problem) {
        turn.state = isAbort(problem) ? "stopped" : "failed";
        turn.problem = isAbort(problem) ? null : problem;
    }
    if (turn.state === "stopped" && turn.tokens.length > 0) turn.settings = { ...turn.settings, max_tokens: turn.tokens.length };
    redraw();
    const isShown = chat.get().turns.includes(turn);
    if (isShown) keepLink();
    return isShown && turn.state === "done";
}

/** Goes on where the server was away. */
onRetry(() => {
    const { turns } = chat.get();
    const failed = turns.slice(lastSaid(turns) + 1).findLast(({ state }) => state === "failed");
    if (failed?.problem instanceof ApiError && !isFinal(failed.problem)) void sayAgain(failed);
});

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
    turn.reason = choice?.finish_reason ?? turn.reason;
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
    const all = [found, ...others].map((each, id) => ({ id, ...shownText(each), logprob: each.logprob }));
    const own = /** @type {Rival} */ (all[0]);
    return { ...own, candidates: [...all].sort((a, b) => b.logprob - a.logprob) };
}

/**
 * The text of a token by its bytes: the chat interface names one that is no whole character `bytes:\\xf0`. A control
 * token has no bytes, but a name.
 * @param {{ token: string, bytes: number[] }} token
 */
export function shownText({ token, bytes }) {
    if (bytes.length === 0) return { piece: token };
    const content = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const text = decoded(content);
    return text === null ? { piece: "\ufffd", bytes: content } : { piece: text };
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
    return chat.get().turns.some(({ state }) => state === "writing");
}

/** The place of the last turn with an answer; -1 for none. @param {Turn[]} turns */
function lastSaid(turns) {
    return turns.findLastIndex(isSaid);
}

function keepLink() {
    const { turns } = chat.get();
    const last = lastSaid(turns);
    const linked = turns.filter((turn, place) => isSaid(turn) || (place > last && turn.state !== "stopped"));
    const said = linked.map(({ user, settings }) => `${writeSet(settings)} ${user}`);
    shownKey = JSON.stringify([said.length > 0 ? chat.get().model : "", said]);
    const { view } = readRoute(location.hash);
    if (view === "" || view === "playground") changeState({ say: said.length > 0 ? said : null });
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
    const turns = said.map((text) => {
        const [set = "", ...words] = text.split(" ");
        return newTurn(words.join(" "), readSet(set));
    });
    chat.set({ model, turns });
    await answerWaiting();
}
