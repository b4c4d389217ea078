/**
 * The playground in a link: settings as numbers, branches by place and token. A seed and settings make the same text,
 * so a link has no text but the prompt. Pure functions.
 */

/** @typedef {import("./play_types.js").Settings} Settings */
/** @typedef {import("./play_types.js").Sample} Sample */
/** @typedef {import("./route.js").Changes} Changes */

/** @type {Settings} */
export const DEFAULTS = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1, max_tokens: 100, seed: 1 };

/** A prompt to begin with, in the language of the bundled model. */
export const FIRST_PROMPT = "Once upon a time";

/** Name of a setting in a link, and its limits. */
export const LIMITS = /** @type {const} */ ({
    temperature: { key: "t", least: 0, most: 2, step: 0.05 },
    top_k: { key: "k", least: 0, most: 100, step: 1 },
    top_p: { key: "p", least: 0.05, most: 1, step: 0.01 },
    min_p: { key: "m", least: 0, most: 0.5, step: 0.01 },
    repetition_penalty: { key: "r", least: 1, most: 2, step: 0.05 },
    max_tokens: { key: "n", least: 1, most: 500, step: 1 },
    seed: { key: "seed", least: 0, most: 2 ** 31, step: 1 },
});
const NAMES = /** @type {(keyof Settings)[]} */ (Object.keys(DEFAULTS));
export const MOST_SAMPLES = 4;
/** Branches that a link can have; links should stay short enough for mail programs. */
export const MOST_BRANCHES = 64;
/** Characters of a prompt that a link can have. */
export const MOST_LINKED = 4000;

/**
 * @typedef {object} LinkedBranch
 * @property {number} sample
 * @property {Settings} settings
 * @property {number | null} parent
 * @property {number} start
 * @property {number | null} token
 */

/**
 * The settings of a link.
 * @param {URLSearchParams} params
 * @returns {Settings}
 */
export function readSettings(params) {
    const settings = { ...DEFAULTS };
    for (const name of NAMES) settings[name] = limited(name, params.get(LIMITS[name].key));
    return settings;
}

/**
 * @param {keyof Settings} name
 * @param {string | null | undefined} text
 * @param {number} [least]
 */
function limited(name, text, least = LIMITS[name].least) {
    const value = text === null || text === undefined || text.trim() === "" ? NaN : Number(text);
    if (!Number.isFinite(value)) return DEFAULTS[name];
    const whole = LIMITS[name].step === 1 ? Math.round(value) : value;
    return Math.min(LIMITS[name].most, Math.max(least, whole));
}

/**
 * What changes in a link when settings do.
 * @param {Partial<Settings>} settings
 * @returns {Changes}
 */
export function settingChanges(settings) {
    /** @type {Changes} */
    const changes = {};
    for (const name of NAMES) {
        const value = settings[name];
        if (value !== undefined) changes[LIMITS[name].key] = value === DEFAULTS[name] ? null : String(value);
    }
    return changes;
}

/**
 * What a link has of trees; all of it is null without samples.
 * @param {Sample[]} samples
 * @returns {{ set: string[] | null, node: string[] | null, at: string[] | null, fold: string[] | null }}
 */
export function treeChanges(samples) {
    /** @type {string[]} */
    const sets = [];
    /** @type {string[]} */
    const nodes = [];
    /** @type {string[]} */
    const at = [];
    /** @type {string[]} */
    const folds = [];
    for (const [place, { branches, active, folded }] of samples.entries()) {
        const kept = branches.map((_, index) => index).filter((index) => !branches[index]?.removed);
        const numbers = new Map(kept.map((index, number) => [index, number]));
        for (const index of kept) {
            const branch = /** @type {import("./play_types.js").Branch} */ (branches[index]);
            const set = placeOf(sets, writeSet(branch.settings));
            const parent = branch.parent === null ? null : numbers.get(branch.parent);
            const ways = parent === null ? [] : [parent, branch.start, branch.token ?? "-"];
            nodes.push([place, set, ...ways].join("."));
        }
        if (active !== 0) at.push(`${place}.${numbers.get(active)}`);
        for (const index of folded) if (numbers.has(index)) folds.push(`${place}.${numbers.get(index)}`);
    }
    return { set: orNull(sets), node: orNull(nodes), at: orNull(at), fold: orNull(folds) };
}

/** @param {string[]} values */
function orNull(values) {
    return values.length > 0 ? values : null;
}

/**
 * @param {string[]} values
 * @param {string} value
 */
function placeOf(values, value) {
    const place = values.indexOf(value);
    return place < 0 ? values.push(value) - 1 : place;
}

/** @param {Settings} settings */
export function writeSet(settings) {
    return NAMES.map((name) => settings[name]).join("_");
}

/**
 * @param {string} text
 * @returns {Settings}
 */
export function readSet(text) {
    const values = text.split("_");
    const settings = { ...DEFAULTS };
    // A branch that was stopped at once has no token but the one that it takes.
    for (const [place, name] of NAMES.entries()) settings[name] = limited(name, values[place], name === "max_tokens" ? 0 : undefined);
    return settings;
}

/**
 * The branches that a link names; those that make no sense are left out.
 * @param {URLSearchParams} params
 * @returns {LinkedBranch[]}
 */
export function readBranches(params) {
    const sets = params.getAll("set").map(readSet);
    const counts = new Array(MOST_SAMPLES).fill(0);
    /** @type {LinkedBranch[]} */
    const branches = [];
    for (const text of params.getAll("node").slice(0, MOST_BRANCHES)) {
        const [sample = -1, set = -1, parent, start = 0, token] = text.split(".").map((part) => (part === "-" ? null : Number(part)));
        const settings = sets[set ?? -1];
        const known = sample === null ? undefined : counts[sample];
        if (sample === null || settings === undefined || known === undefined) continue;
        if (parent === undefined ? known > 0 : !(Number.isInteger(parent) && Number(parent) < known)) continue;
        counts[sample] += 1;
        branches.push({ sample, settings, parent: parent ?? null, start: start ?? 0, token: token ?? null });
    }
    return branches;
}

/**
 * Pairs of numbers such as `at=0.3`: sample 0, branch 3.
 * @param {URLSearchParams} params
 * @param {string} name
 * @returns {[number, number][]}
 */
export function readPairs(params, name) {
    return params.getAll(name).map((text) => {
        const [sample, branch] = text.split(".").map(Number);
        return [sample ?? -1, branch ?? -1];
    });
}

/**
 * The part of a link that decides which texts are written: equal parts, equal texts.
 * @param {URLSearchParams} params
 */
export function treeKey(params) {
    if (!params.has("node")) return "";
    return JSON.stringify([params.get("of"), params.getAll("by"), params.getAll("set"), params.getAll("node")]);
}
