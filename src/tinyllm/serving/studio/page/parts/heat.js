/** How surprising a token is, as a share of the strongest shade, and probabilities in words. Pure functions. */
import { formatPercent } from "./language.js";

/** A token of this probability or less has the strongest shade. */
const LEAST_PROBABILITY = 0.001;

/**
 * The shade of a token between 0 (certain) and 1 (as unlikely as `LEAST_PROBABILITY` or more so).
 * @param {number | null} logprob natural logarithm of the probability; null for none
 */
export function heatOf(logprob) {
    return logprob === null ? 0 : Math.min(1, Math.max(0, logprob / Math.log(LEAST_PROBABILITY)));
}

/**
 * The style that gives an element its shade; the style sheet makes a colour of it.
 * @param {number | null} logprob
 */
export function heatStyle(logprob) {
    return { "--heat": `${Math.round(heatOf(logprob) * 100)}%` };
}

/**
 * A probability in percent; the smallest are "below" a bound.
 * @param {number} probability
 */
export function percentText(probability) {
    return probability > 0 && probability < 0.001 ? `< ${formatPercent(0.001)}` : formatPercent(probability);
}
