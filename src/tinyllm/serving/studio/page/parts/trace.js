/** The answer of a trace, and what is read from it: weights of a head, and what a token looks at. Pure functions. */

/** @typedef {import("./types.js").Token} Token */
/** @typedef {"previous" | "beginning" | "same" | "after_same"} Role */
/** @typedef {{ layer: number, head: number, role: Role, score: number }} HeadRole */
/** @typedef {Token & { probability: number }} LensToken */
/**
 * @typedef {object} TraceAnswer
 * @property {Token[]} tokens
 * @property {(number | null)[]} loss in nats; the first token has none
 * @property {number} layers
 * @property {number} heads
 * @property {string} attention base64 of bytes, 255 times the weight; layers x heads x tokens x tokens
 * @property {HeadRole[]} roles
 * @property {LensToken[][][]} lens (layers + 1) x tokens x 3
 * @property {number[][]} norms (layers + 1) x tokens
 */
/** @typedef {Omit<TraceAnswer, "attention"> & { weights: Uint8Array }} Trace */

/**
 * @param {TraceAnswer} answer
 * @returns {Trace}
 */
export function readTrace({ attention, ...others }) {
    return { ...others, weights: Uint8Array.from(atob(attention), (sign) => sign.charCodeAt(0)) };
}

/**
 * The weights of a head: a row for each token that looks, a column for each that is looked at.
 * @param {Trace} trace
 * @param {number} layer
 * @param {number} head
 */
export function headWeights({ weights, heads, tokens }, layer, head) {
    const size = tokens.length ** 2;
    const start = (layer * heads + head) * size;
    return weights.subarray(start, start + size);
}

/**
 * The places that a token looks at most, with their weights, the largest first.
 * @param {Uint8Array} map weights of a head
 * @param {number} numTokens
 * @param {number} place
 * @param {number} count
 */
export function looksAt(map, numTokens, place, count) {
    return Array.from(map.subarray(place * numTokens, place * numTokens + place + 1), (weight, at) => ({ at, weight: weight / 255 }))
        .sort((a, b) => b.weight - a.weight)
        .slice(0, count)
        .filter(({ weight }) => weight >= 0.01);
}

/**
 * The mean loss in nats; null without a token that has one.
 * @param {(number | null)[]} loss
 */
export function meanLoss(loss) {
    const known = loss.filter((value) => value !== null);
    return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}

/**
 * The place of the token with the largest loss.
 * @param {(number | null)[]} loss
 */
export function mostSurprising(loss) {
    const values = loss.map((value) => value ?? 0);
    return Math.max(0, values.indexOf(Math.max(...values)));
}
