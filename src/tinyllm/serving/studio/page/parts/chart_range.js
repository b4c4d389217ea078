/** The ranges of a chart's axes. Pure functions. */
import uPlot from "../vendor/uplot/uPlot.js";

/** @typedef {{ logX?: boolean, logY?: boolean, fromZero?: boolean }} Axes */

/** Room above and below a curve, as a share of its height. */
const ROOM = 0.1;

/**
 * The largest multiple of a power of 10, such as 4000 for 4096, that is not above `value`; lines are counted from it.
 * @param {number} value
 */
export function wholeMultiple(value) {
    const power = 10 ** Math.floor(Math.log10(value));
    return Math.floor(value / power) * power;
}

/**
 * The range of a vertical axis that shows all of `values`; those that are missing, or not finite, do not count.
 * @param {(number | null)[]} values
 * @param {Axes} axes
 * @returns {[number, number]}
 */
export function valueRange(values, { logY, fromZero }) {
    const known = /** @type {number[]} */ (values.filter((value) => value !== null && Number.isFinite(value) && (!logY || value > 0)));
    if (known.length === 0) return logY ? [1, 10] : [0, 1];
    const [least, most] = [Math.min(...known), Math.max(...known)];
    if (logY) {
        // A little room, where whole powers of 10 would flatten a curve.
        const room = Math.max(1.05, (most / least) ** 0.06);
        return [least / room, most * room];
    }
    if (fromZero) return [0, (most || 1) * 1.05];
    const [low, high] = uPlot.rangeNum(least, most, ROOM, true);
    return [low ?? least, high ?? most];
}

/** A logarithmic axis whose ends differ by less has lines as a linear one has: there may be no power of 10 on it. */
const NARROW = 10;
const MOST_LINES = 5;

/** @param {number} least @param {number} most */
export function isNarrow(least, most) {
    return most < NARROW * least;
}

/**
 * The lines of a logarithmic axis: at whole multiples of powers of 10, or evenly on one that is narrow. Bytes stand at
 * powers of 2, or at multiples of one.
 * @param {number} least above 0
 * @param {number} most
 * @param {boolean} [binary]
 * @returns {number[]}
 */
export function logLines(least, most, binary = false) {
    if (isNarrow(least, most)) return evenLines(least, most, binary);
    const [base, factors] = binary ? [2, [1]] : [10, [1, 2, 3, 4, 5, 6, 7, 8, 9]];
    /** @type {number[]} */
    const lines = [];
    for (let power = base ** Math.floor(Math.log(least) / Math.log(base)); power <= most; power *= base) {
        lines.push(...factors.map((factor) => factor * power).filter((line) => line >= least && line <= most));
    }
    return lines;
}

/**
 * @param {number} least
 * @param {number} most
 * @param {boolean} binary
 */
function evenLines(least, most, binary) {
    const rough = (most - least) / MOST_LINES || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = binary
        ? 2 ** Math.ceil(Math.log2(rough))
        : power * /** @type {number} */ ([1, 2, 5, 10].find((factor) => factor * power >= rough));
    const first = Math.ceil(least / step);
    const count = Math.floor(most / step) - first + 1;
    return Array.from({ length: Math.max(0, count) }, (_, place) => Number(((first + place) * step).toPrecision(12)));
}

/**
 * Labels with those left empty that would touch the one before.
 * @param {string[]} labels
 * @param {number[]} places of their middles, in pixels
 * @param {number} width of one character, in pixels
 */
export function spacedLabels(labels, places, width) {
    let end = -Infinity;
    return labels.map((label, place) => {
        const half = (label.length * width) / 2;
        const middle = places[place] ?? 0;
        if (label === "" || middle - half < end) return "";
        end = middle + half + 2 * width;
        return label;
    });
}

/**
 * The values at which the curves cross the ends of the range of x that is shown. A zoomed chart draws the lines to the
 * points beyond its ends, which would leave it through its floor or ceiling if the range did not hold these values.
 * @param {uPlot.AlignedData} data x, then the values of each series
 * @param {[number, number]} shown
 * @param {Axes} axes
 * @returns {number[]}
 */
export function edgeValues(data, shown, { logX, logY }) {
    const [places, ...series] = data;
    return series.flatMap((values) => shown.flatMap((edge) => {
        const [before, after] = neighbours(places, values, edge);
        if (before === null || after === null) return [];
        const [x0, x1, at] = [places[before] ?? 0, places[after] ?? 0, edge].map((x) => (logX ? Math.log(x) : x));
        const [y0, y1] = [values[before] ?? 0, values[after] ?? 0].map((y) => (logY ? Math.log(y) : y));
        if (x0 === undefined || x1 === undefined || at === undefined || y0 === undefined || y1 === undefined) return [];
        const value = y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
        return [logY ? Math.exp(value) : value];
    }));
}

/**
 * The places of the known values before and after an edge that lies between them; null without one.
 * @param {ArrayLike<number>} places
 * @param {ArrayLike<number | null | undefined>} values
 * @param {number} edge
 * @returns {[number | null, number | null]}
 */
function neighbours(places, values, edge) {
    let after = firstAfter(places, edge);
    let before = after - 1;
    while (before >= 0 && isMissing(values[before])) before--;
    while (after < places.length && isMissing(values[after])) after++;
    return [before < 0 ? null : before, after >= places.length ? null : after];
}

/** @param {number | null | undefined} value */
function isMissing(value) {
    return value === null || value === undefined;
}

/**
 * The first place beyond `edge`, by binary search.
 * @param {ArrayLike<number>} places increasing
 * @param {number} edge
 */
function firstAfter(places, edge) {
    let [low, high] = [0, places.length];
    while (low < high) {
        const middle = (low + high) >> 1;
        if (/** @type {number} */ (places[middle]) <= edge) low = middle + 1;
        else high = middle;
    }
    return low;
}
