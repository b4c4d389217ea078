/**
 * The samples of the playground and what is done with them: write, stop, branch, go on, remove, and read from a link.
 *
 * They outlive the view, so that texts stay there while another view is shown. The link follows every change.
 */
import { apiError, isAbort } from "../parts/api.js";
import { postForEvents } from "../parts/events.js";
import { readableIds } from "../parts/library.js";
import { DEFAULTS, MOST_BRANCHES, MOST_LINKED, readBranches, readPairs, treeChanges, treeKey } from "../parts/play_link.js";
import { existingBranch, parentAt, pathTokens, subtree, takenToken } from "../parts/play_tree.js";
import { changeState, readRoute } from "../parts/route.js";
import { createStore } from "../parts/store.js";
import { t } from "../parts/language.js";

/** @typedef {import("../parts/play_types.js").Branch} Branch */
/** @typedef {import("../parts/play_types.js").Sample} Sample */
/** @typedef {import("../parts/play_types.js").Settings} Settings */

const NUM_RIVALS = 10;
/** The status of an error that comes after the head of an answer. */
const STREAM_BROKE = 500;

/** The samples, and the prompt that they continue. The object is a new one after every change. */
export const written = createStore({ prompt: "", samples: /** @type {Sample[]} */ ([]) });
/** The token that the distribution is about: a sample and a place of its text; null for the end of the text. */
export const cursor = createStore({ sample: 0, place: /** @type {number | null} */ (null) });
/** What a link could not be made of. */
export const linkProblem = createStore("");

/** @type {WeakMap<Branch, AbortController>} */
const controllers = new WeakMap();
let shownKey = "";
let drawing = false;
let restoring = 0;

/** Shows changes with the next frame: tokens come faster than screens are drawn. */
function redraw() {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
        drawing = false;
        written.set({ ...written.get() });
    });
}

/**
 * @param {Settings} settings
 * @param {Partial<Branch>} [fields]
 * @returns {Branch}
 */
function newBranch(settings, fields = {}) {
    return {
        parent: null, start: 0, token: null, settings, tokens: [], state: "waiting", problem: null, reason: "",
        speed: null, commands: null, removed: false, ...fields,
    };
}

/**
 * One sample a model of the list. Samples of one model have seeds that follow one another; different models share one.
 * @param {string[]} models
 * @param {Settings} settings
 * @returns {Sample[]}
 */
function newSamples(models, settings) {
    return models.map((model, place) => ({
        model,
        offset: models.slice(0, place).filter((each) => each === model).length,
        prompt: [],
        branches: [newBranch(settings)],
        active: 0,
        folded: new Set(),
    }));
}

/**
 * Writes a text with each model.
 * @param {string} prompt
 * @param {string[]} models
 * @param {Settings} settings
 */
export function write(prompt, models, settings) {
    stopAll();
    cursor.set({ sample: 0, place: null });
    written.set({ prompt, samples: newSamples(models, settings) });
    changeState({ prompt: null, blank: null, model: null });
    keepLink(true);
    for (const sample of written.get().samples) void writeBranch(sample, 0);
}

/**
 * Receives the tokens of a branch. Errors are kept in it.
 * @param {Sample} sample
 * @param {number} index
 */
async function writeBranch(sample, index) {
    const branch = /** @type {Branch} */ (sample.branches[index]);
    const controller = new AbortController();
    controllers.set(branch, controller);
    branch.state = "writing";
    redraw();
    try {
        const body = requestBody(sample, branch);
        if (body.max_tokens > 0) {
            for await (const event of postForEvents("generate", body, controller.signal)) receive(sample, branch, event);
        }
        if (branch.state === "writing") branch.state = "done";
    } catch (problem) {
        branch.state = isAbort(problem) ? "stopped" : "failed";
        branch.problem = isAbort(problem) ? null : problem;
    }
    // The link of a text that was stopped asks for as many tokens as it has.
    if (branch.state !== "done") branch.settings = { ...branch.settings, max_tokens: ownNew(branch) };
    redraw();
    if (written.get().samples.includes(sample)) keepLink(false);
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
 * @returns {Record<string, any> & { max_tokens: number }}
 */
function requestBody(sample, branch) {
    const { settings } = branch;
    const common = { model: sample.model, ...settings, seed: settings.seed + sample.offset, rivals: NUM_RIVALS };
    if (branch.parent === null) return { ...common, prompt: written.get().prompt };
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
    if (name === "prompt" && branch.parent === null) sample.prompt = data.tokens;
    else if (name === "token") branch.tokens.push(data);
    else if (name === "done") {
        branch.reason = data.reason;
        branch.speed = data.tokens_per_second;
        branch.commands = data.command;
    } else if (name === "error") {
        branch.state = "failed";
        branch.problem = apiError(data.error ?? data, STREAM_BROKE);
    }
    redraw();
}

/**
 * Takes a token at a place of the text that is shown, and writes on from there. Goes to the branch if there is one.
 * @param {Sample} sample
 * @param {number} place
 * @param {number | null} token null writes on at the end
 * @param {Settings} settings
 */
export function branchOff(sample, place, token, settings) {
    const parent = token === null ? sample.active : parentAt(sample.branches, sample.active, place);
    const existing = existingBranch(sample.branches, parent, place, token);
    if (existing >= 0) {
        walkTo(sample, existing);
        return;
    }
    if (sample.branches.filter(({ removed }) => !removed).length * written.get().samples.length >= MOST_BRANCHES) {
        linkProblem.set(t("play.too_many", { count: MOST_BRANCHES }));
        return;
    }
    const index = addBranch(sample, parent, place, token, settings);
    if (index < 0) return;
    unfoldTo(sample, index);
    sample.active = index;
    cursor.set({ sample: written.get().samples.indexOf(sample), place: null });
    keepLink(true);
    void writeBranch(sample, index);
}

/**
 * The index of a new branch; -1 if its token is none of the candidates.
 * @param {Sample} sample
 * @param {number} parent
 * @param {number} start
 * @param {number | null} token
 * @param {Settings} settings
 */
function addBranch({ branches }, parent, start, token, settings) {
    const taken = token === null ? null : takenToken(branches, parent, start, token);
    if (token !== null && taken === null) return -1;
    return branches.push(newBranch(settings, { parent, start, token, tokens: taken === null ? [] : [taken] })) - 1;
}

/**
 * Shows the text of a branch.
 * @param {Sample} sample
 * @param {number} index
 */
export function walkTo(sample, index) {
    if (sample.branches[index] === undefined) return;
    unfoldTo(sample, index);
    sample.active = index;
    cursor.set({ sample: written.get().samples.indexOf(sample), place: null });
    redraw();
    keepLink(false);
}

/** @param {Sample} sample @param {number} index */
function unfoldTo({ branches, folded }, index) {
    for (let up = branches[index]?.parent ?? null; up !== null; up = branches[up]?.parent ?? null) folded.delete(up);
}

/**
 * @param {Sample} sample
 * @param {number} index
 * @param {boolean} fold
 */
export function foldBranch(sample, index, fold) {
    if (fold) sample.folded.add(index);
    else sample.folded.delete(index);
    if (fold && subtree(sample.branches, index).includes(sample.active)) sample.active = index;
    redraw();
    keepLink(false);
}

/**
 * Removes a branch and everything that leaves it. The first one stays.
 * @param {Sample} sample
 * @param {number} index
 */
export function removeBranch(sample, index) {
    const parent = sample.branches[index]?.parent ?? null;
    if (parent === null) return;
    const gone = subtree(sample.branches, index);
    for (const each of gone) {
        const branch = /** @type {Branch} */ (sample.branches[each]);
        controllers.get(branch)?.abort();
        branch.removed = true;
        sample.folded.delete(each);
    }
    if (gone.includes(sample.active)) sample.active = parent;
    cursor.set({ sample: written.get().samples.indexOf(sample), place: null });
    redraw();
    keepLink(false);
}

/** Whether a text is being written. */
export function isWriting() {
    return written.get().samples.some(({ branches }) => branches.some(({ state }) => state === "writing"));
}

export function stopAll() {
    for (const { branches } of written.get().samples) {
        for (const branch of branches) controllers.get(branch)?.abort();
    }
}

/** @param {boolean} push */
function keepLink(push) {
    const { prompt, samples } = written.get();
    const { view } = readRoute(location.hash);
    if (restoring > 0 || (view !== "" && view !== "playground")) return; // texts go on while another view is shown
    const tooLong = prompt.length > MOST_LINKED;
    linkProblem.set(tooLong ? t("play.link_too_long", { count: MOST_LINKED }) : "");
    const linked = tooLong ? [] : samples;
    const by = linked.map(({ model }) => model);
    const of = linked.length === 0 ? null : prompt;
    changeState({ of, bare: of === "" ? "1" : null, by, ...treeChanges(linked) }, { push });
    shownKey = treeKey(readRoute(location.hash).params);
}

/**
 * Shows what a link names: writes its texts again, unless they are there; then goes to its branches.
 * @param {URLSearchParams} params
 */
export function showLink(params) {
    const key = treeKey(params);
    if (key !== shownKey) {
        shownKey = key;
        stopAll();
        const branches = readBranches(params);
        const settings = branches[0]?.settings ?? DEFAULTS;
        const models = params.getAll("by").filter((_, place) => branches.some(({ sample }) => sample === place));
        const samples = newSamples(models, settings);
        written.set({ prompt: params.get("of") ?? "", samples });
        for (const [place, sample] of samples.entries()) {
            void rewrite(sample, branches.filter((each) => each.sample === place), params, place);
        }
        return;
    }
    if (restoring > 0) return;
    for (const [place, sample] of written.get().samples.entries()) {
        const kept = [...sample.branches.keys()].filter((index) => !sample.branches[index]?.removed);
        goToLinked(sample, params, place, kept);
    }
}

/**
 * Writes the branches of a link one after another, each after those that it may leave.
 * @param {Sample} sample
 * @param {import("../parts/play_link.js").LinkedBranch[]} linked
 * @param {URLSearchParams} params
 * @param {number} place
 */
async function rewrite(sample, linked, params, place) {
    if (sample.branches[0] === undefined || linked[0] === undefined) return;
    sample.branches[0].settings = linked[0].settings;
    restoring += 1;
    try {
        await writeBranch(sample, 0);
        const made = [0]; // number in the link -> index, for the user may branch off meanwhile
        for (const { parent, start, token, settings } of linked.slice(1)) {
            const from = made[parent ?? 0] ?? 0;
            const known = sample.branches[from];
            if (!written.get().samples.includes(sample) || known?.state !== "done") return;
            const reached = start <= known.start + known.tokens.length;
            const index = reached ? addBranch(sample, from, start, token, settings) : -1;
            if (index < 0) {
                linkProblem.set(t("play.other_text"));
                return;
            }
            made.push(index);
            await writeBranch(sample, index);
        }
        goToLinked(sample, params, place, made);
    } finally {
        restoring -= 1;
        if (restoring === 0 && linkProblem.get() === "") keepLink(false);
    }
}

/**
 * @param {Sample} sample
 * @param {URLSearchParams} params
 * @param {number} place
 * @param {number[]} made number in the link -> index
 */
function goToLinked(sample, params, place, made) {
    const at = readPairs(params, "at").find(([each]) => each === place)?.[1] ?? 0;
    const folded = readPairs(params, "fold").filter(([each]) => each === place).map(([, branch]) => branch);
    sample.active = made[at] ?? 0;
    sample.folded = new Set(folded.flatMap((each) => made[each] ?? []));
    redraw();
}
