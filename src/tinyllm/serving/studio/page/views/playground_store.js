/**
 * The samples of the playground and what is done with them: write, stop, branch, go on, remove, and read from a link.
 *
 * They outlive the view, so that texts stay there while another view is shown. The link follows every change.
 */
import { DEFAULTS, MOST_BRANCHES, MOST_LINKED, readBranches, readPairs, treeChanges, treeKey } from "../parts/play_link.js";
import { existingBranch, parentAt, subtree, takenToken } from "../parts/play_tree.js";
import { onRetry } from "../parts/retry.js";
import { changeState, readRoute } from "../parts/route.js";
import { createStore } from "../parts/store.js";
import { t } from "../parts/language.js";
import { mayMend, receiveTokens, stopBranch } from "./playground_writing.js";

/** @typedef {import("../parts/play_types.js").Branch} Branch */
/** @typedef {import("../parts/play_types.js").Sample} Sample */
/** @typedef {import("../parts/play_types.js").Settings} Settings */

/** The samples, and the prompt that they continue. The object is a new one after every change. */
export const written = createStore({ prompt: "", samples: /** @type {Sample[]} */ ([]) });
/** The token that the distribution is about: a sample and a place of its text; null for the end of the text. */
export const cursor = createStore({ sample: 0, place: /** @type {number | null} */ (null) });
/** What a link could not be made of. */
export const linkProblem = createStore("");

let shownKey = "";
let drawing = false;
let restoring = 0;
/** @type {Set<Sample>} */
const rewriting = new Set();

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
 * @param {Sample} sample
 * @param {number} index
 */
async function writeBranch(sample, index) {
    await receiveTokens(sample, /** @type {Branch} */ (sample.branches[index]), written.get().prompt, redraw);
    if (written.get().samples.includes(sample)) keepLink(false);
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
    if ((sample.branches[index]?.parent ?? null) === null) return;
    dropBranch(sample, index);
    cursor.set({ sample: written.get().samples.indexOf(sample), place: null });
    keepLink(false);
}

/**
 * @param {Sample} sample
 * @param {number} index of a branch that leaves another
 */
function dropBranch(sample, index) {
    const gone = subtree(sample.branches, index);
    for (const each of gone) {
        const branch = /** @type {Branch} */ (sample.branches[each]);
        stopBranch(branch);
        branch.removed = true;
        sample.folded.delete(each);
    }
    if (gone.includes(sample.active)) sample.active = sample.branches[index]?.parent ?? 0;
    redraw();
}

/** Whether a text is being written. */
export function isWriting() {
    return written.get().samples.some(({ branches }) => branches.some(({ state }) => state === "writing"));
}

export function stopAll() {
    for (const { branches } of written.get().samples) {
        for (const branch of branches) stopBranch(branch);
    }
}

/** @param {boolean} push */
function keepLink(push) {
    const { prompt, samples } = written.get();
    const { view } = readRoute(location.hash);
    if (restoring > 0 || (view !== "" && view !== "playground")) return; // texts go on while another view is shown
    const tooLong = prompt.length > MOST_LINKED;
    linkProblem.set(tooLong ? t("play.link_too_long", { count: MOST_LINKED }) : "");
    const models = samples.map(({ model }) => model);
    if (tooLong) {
        changeState({ of: null, bare: null, by: null, model: models, ...treeChanges([]) }, { push });
    } else {
        const of = samples.length === 0 ? null : prompt;
        changeState({ of, bare: of === "" ? "1" : null, by: models, ...treeChanges(samples) }, { push });
    }
    shownKey = treeKey(readRoute(location.hash).params);
}

/**
 * Shows what a link names: writes its texts again, unless they are there; then goes to its branches.
 * @param {URLSearchParams} params
 */
export function showLink(params) {
    const key = treeKey(params);
    const isNew = key !== shownKey;
    if (isNew) {
        shownKey = key;
        stopAll();
        const branches = readBranches(params);
        const models = params.getAll("by").filter((_, place) => branches.some(({ sample }) => sample === place));
        const samples = newSamples(models, DEFAULTS);
        // All branches are there from the beginning, so that the link has them however many can be written.
        for (const [place, sample] of samples.entries()) {
            sample.branches = branches.filter((each) => each.sample === place)
                .map(({ settings, parent, start, token }) => newBranch(settings, { parent, start, token }));
        }
        linkProblem.set("");
        written.set({ prompt: params.get("of") ?? "", samples });
    }
    if (!isNew && restoring > 0) return;
    for (const [place, sample] of written.get().samples.entries()) {
        const kept = [...sample.branches.keys()].filter((index) => !sample.branches[index]?.removed);
        goToLinked(sample, params, place, kept);
        if (isNew) void rewrite(sample);
    }
}

/**
 * Writes the branches of a sample that are not written: those of a link, or those that failed. Each comes after those
 * that it may leave.
 * @param {Sample} sample
 */
export async function rewrite(sample) {
    if (rewriting.has(sample)) return;
    rewriting.add(sample);
    restoring += 1;
    try {
        for (const [index, branch] of sample.branches.entries()) {
            if (!written.get().samples.includes(sample)) return;
            if (branch.removed || !["waiting", "failed"].includes(branch.state)) continue;
            if (!takeStart(sample, index)) continue;
            await receiveTokens(sample, branch, written.get().prompt, redraw);
            if (/** @type {string} */ (branch.state) === "stopped") giveUpWaiting(sample);
        }
    } finally {
        rewriting.delete(sample);
        restoring -= 1;
        if (restoring === 0 && linkProblem.get() === "") keepLink(false);
    }
}

/**
 * Takes the token that a branch starts with. False if it cannot be written: it fails with the branch that it leaves,
 * or is removed where the text of that branch is another one.
 * @param {Sample} sample
 * @param {number} index
 */
function takeStart(sample, index) {
    const branch = /** @type {Branch} */ (sample.branches[index]);
    const { parent, start, token } = branch;
    const from = sample.branches[parent ?? -1];
    if (parent === null || from === undefined) return true;
    if (from.state === "failed") {
        Object.assign(branch, { state: "failed", problem: from.problem });
        redraw();
        return false;
    }
    const taken = token === null ? null : takenToken(sample.branches, parent, start, token);
    if (start > from.start + from.tokens.length || (token !== null && taken === null)) {
        linkProblem.set(t("play.other_text"));
        dropBranch(sample, index);
        return false;
    }
    if (taken !== null) branch.tokens = [taken];
    return true;
}

/** Removes the branches that are not written: the user stopped it. @param {Sample} sample */
function giveUpWaiting(sample) {
    for (const [index, { state, removed }] of sample.branches.entries()) {
        if (state === "waiting" && !removed) dropBranch(sample, index);
    }
}

/** Writes again what failed while the server was away. */
onRetry(() => {
    for (const sample of written.get().samples) if (sample.branches.some(mayMend)) void rewrite(sample);
});

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
