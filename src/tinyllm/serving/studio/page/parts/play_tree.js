/**
 * A tree of continuations: branches that leave the text of another branch at a place. Pure functions.
 *
 * A place is the number of generated tokens before it, counted along the text from the prompt. A branch with a token
 * takes it at its start; one without a token goes on at the end of its parent.
 */

/** @typedef {import("./play_types.js").Branch} Branch */
/** @typedef {import("./play_types.js").Written} Written */
/** @typedef {import("./play_types.js").Rival} Rival */

/**
 * The generated tokens from the prompt to the end of a branch.
 * @param {Branch[]} branches
 * @param {number} index
 * @returns {Written[]}
 */
export function pathTokens(branches, index) {
    const branch = branches[index];
    if (branch === undefined) return [];
    const before = branch.parent === null ? [] : pathTokens(branches, branch.parent).slice(0, branch.start);
    return [...before, ...branch.tokens];
}

/**
 * The branch to whose own tokens a place of a text belongs.
 * @param {Branch[]} branches
 * @param {number} index of the branch whose text it is
 * @param {number} place
 */
export function ownerOf(branches, index, place) {
    let owner = index;
    for (let branch = branches[owner]; branch && branch.parent !== null && place < branch.start; branch = branches[owner]) {
        owner = branch.parent;
    }
    return owner;
}

/**
 * The branch that a new one at a place belongs to: siblings that take other tokens at one place have one parent.
 * @param {Branch[]} branches
 * @param {number} index
 * @param {number} place
 */
export function parentAt(branches, index, place) {
    let owner = ownerOf(branches, index, place);
    for (let branch = branches[owner]; branch && branch.parent !== null && branch.token !== null && branch.start === place; branch = branches[owner]) {
        owner = branch.parent;
    }
    return owner;
}

/**
 * The token of a branch at a place and its rivals, the likeliest first.
 * @param {Written} token
 * @returns {Rival[]}
 */
export function candidates({ id, piece, bytes, logprob, rivals }) {
    const all = [{ id, piece, bytes, logprob }, ...rivals];
    return all.sort((a, b) => b.logprob - a.logprob || a.id - b.id);
}

/**
 * The token that a branch starts with when it takes `id` at a place, with the others as its rivals; null if `id` is
 * no candidate there.
 * @param {Branch[]} branches
 * @param {number} parent
 * @param {number} place
 * @param {number} id
 * @returns {Written | null}
 */
export function takenToken(branches, parent, place, id) {
    const branch = branches[parent];
    const there = branch?.tokens[place - branch.start];
    if (there === undefined) return null;
    const found = candidates(there).find((each) => each.id === id);
    return found === undefined ? null : { ...found, rivals: candidates(there).filter((each) => each.id !== id) };
}

/**
 * The branch that takes a token at a place: a child, or the parent itself. -1 for none.
 * @param {Branch[]} branches
 * @param {number} parent
 * @param {number} place
 * @param {number | null} token
 */
export function existingBranch(branches, parent, place, token) {
    const owner = branches[parent];
    if (token !== null && owner?.tokens[place - owner.start]?.id === token) return parent;
    return branches.findIndex((each) => !each.removed && each.parent === parent && each.start === place && each.token === token);
}

/**
 * The tokens that branches take at a place of a text, beside the one of the text.
 * @param {Branch[]} branches
 * @param {number} index
 * @returns {Map<number, Set<number>>} by place
 */
export function forks(branches, index) {
    /** @type {Map<number, Set<number>>} */
    const found = new Map();
    for (const branch of branches) {
        if (branch.parent === null || branch.token === null || branch.removed) continue;
        if (parentAt(branches, index, branch.start) !== branch.parent) continue;
        const own = branches[branch.parent];
        const taken = found.get(branch.start) ?? new Set();
        taken.add(branch.token);
        const original = own?.tokens[branch.start - own.start]?.id;
        if (original !== undefined) taken.add(original);
        found.set(branch.start, taken);
    }
    return found;
}

/**
 * The branches of an outline in order, without those below a folded one.
 * @param {Branch[]} branches
 * @param {Set<number>} folded
 * @returns {{ index: number, level: number, children: number }[]}
 */
export function outline(branches, folded) {
    /** @type {{ index: number, level: number, children: number }[]} */
    const rows = [];
    /** @param {number} index @param {number} level */
    const visit = (index, level) => {
        const children = childrenOf(branches, index);
        rows.push({ index, level, children: children.length });
        if (!folded.has(index)) for (const child of children) visit(child, level + 1);
    };
    if (branches.length > 0) visit(0, 1);
    return rows;
}

/**
 * The branches that leave another, by place.
 * @param {Branch[]} branches
 * @param {number} index
 */
export function childrenOf(branches, index) {
    return [...branches.keys()]
        .filter((each) => branches[each]?.parent === index && !branches[each]?.removed)
        .sort((a, b) => (branches[a]?.start ?? 0) - (branches[b]?.start ?? 0) || a - b);
}

/**
 * A branch and everything that leaves it.
 * @param {Branch[]} branches
 * @param {number} index
 * @returns {number[]}
 */
export function subtree(branches, index) {
    return [index, ...childrenOf(branches, index).flatMap((child) => subtree(branches, child))];
}
