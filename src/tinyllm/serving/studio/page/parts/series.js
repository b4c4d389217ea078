/** Series of numbers: smoothing, joining, and what is drawn over which axis. Pure functions. */

/** @typedef {import("./types.js").Column} Column */

/**
 * The exponential moving average without the bias of its start: each value is divided by the sum of its weights
 * (Kingma and Ba 2015, section 3). Missing values stay missing.
 * @param {Column} values
 * @param {number} weight of the past, from 0 (no smoothing) to below 1
 * @returns {Column}
 */
export function smooth(values, weight) {
    if (weight <= 0) return values;
    let average = 0;
    let weights = 0;
    return values.map((value) => {
        if (value === null) return null;
        average = weight * average + (1 - weight) * value;
        weights = weight * weights + (1 - weight);
        return average / weights;
    });
}

/**
 * The points of a series in the order of `x`, without those that a logarithmic axis cannot show.
 * @param {Column} x
 * @param {Column} y
 * @param {{ logX: boolean, logY: boolean }} axes
 * @returns {[number[], Column]}
 */
export function drawablePoints(x, y, { logX, logY }) {
    /** @type {number[]} */
    const xs = [];
    /** @type {Column} */
    const ys = [];
    let last = -Infinity;
    for (const [place, at] of x.entries()) {
        const value = y[place] ?? null;
        if (at === null || at <= last || value === null || (logX && at <= 0) || (logY && value <= 0)) continue;
        xs.push(at);
        ys.push(value);
        last = at;
    }
    return [xs, ys];
}

/**
 * The rows of `added` behind those of `columns`; rows of a step that is there already are left out.
 * @template {Record<string, Column>} T
 * @param {T} columns with a column `step`
 * @param {T} added
 * @returns {T}
 */
export function appendColumns(columns, added) {
    const steps = columns["step"] ?? [];
    const last = steps.at(-1) ?? -Infinity;
    const from = (added["step"] ?? []).findIndex((step) => step !== null && step > last);
    if (from < 0) return columns;
    /** @type {Record<string, Column>} */
    const joined = {};
    for (const name of Object.keys(columns)) joined[name] = [...(columns[name] ?? []), ...(added[name] ?? []).slice(from)];
    return /** @type {T} */ (joined);
}

/**
 * The last value that is not missing.
 * @param {Column} values
 */
export function lastValue(values) {
    for (let place = values.length - 1; place >= 0; place--) {
        const value = values[place];
        if (value !== null && value !== undefined) return value;
    }
    return null;
}

/** What stands for a value that is no number, in every language. */
export const NOT_A_NUMBER = "NaN";

/**
 * Whether a column of losses ends in a value that is no number.
 * @param {Column} values
 */
export function isLost(values) {
    return values.at(-1) === null;
}

/**
 * The step that stands at `position` of another axis, between the known points.
 * @param {Column} steps
 * @param {Column} axis increasing
 * @param {number} position
 */
export function stepAt(steps, axis, position) {
    let before = /** @type {[number, number] | null} */ (null);
    for (const [place, at] of axis.entries()) {
        const step = steps[place];
        if (at === null || step === null || step === undefined) continue;
        if (at >= position) {
            if (before === null || at === before[0]) return step;
            return before[1] + ((step - before[1]) * (position - before[0])) / (at - before[0]);
        }
        before = [at, step];
    }
    return before === null ? 0 : before[1];
}

/**
 * `count` values of a list, evenly spread, the first and the last among them.
 * @template T
 * @param {T[]} values
 * @param {number} count at least 2
 * @returns {T[]}
 */
export function spread(values, count) {
    if (values.length <= count) return values;
    const places = Array.from({ length: count }, (_, k) => Math.round((k * (values.length - 1)) / (count - 1)));
    return places.map((place) => /** @type {T} */ (values[place]));
}
