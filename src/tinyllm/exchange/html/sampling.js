/**
 * Chooses the next token: pure functions of logits, with the rules of tinyllm's `generation/sampling.py`.
 *
 * The order is repetition penalty, top-k, temperature, top-p, min-p, then the inverse of the cumulative distribution at one uniform number.
 * Weights are e^((logit - largest) / temperature), in proportion to probabilities; a dropped token has weight 0.
 *
 * Shapes: V vocabulary.
 */

/**
 * Rules for drawing a token: temperature 0 takes the likeliest; topK 0, topP 1 and minP 0 keep all tokens, and a
 * repetitionPenalty of 1 lowers none.
 * @typedef {{temperature: number, topK: number, topP: number, minP: number, repetitionPenalty: number}} Rules
 */

/** @typedef {Float64Array | Float32Array} Logits */

const LARGEST_FLOAT32 = 3.4028234663852886e38;

/**
 * The next token for `logits` (V) and a number in [0, 1); the repetition penalty lowers `seen`.
 * @param {Logits} given @param {Iterable<number>} seen @param {number} uniform @param {Rules} rules
 */
export function choose(given, seen, uniform, rules) {
  const logits = rules.repetitionPenalty === 1 ? given : penalizeRepetition(given, seen, rules.repetitionPenalty);
  return rules.temperature === 0 ? likeliest(logits) : pick(filteredWeights(logits, rules), uniform);
}

/**
 * A copy of `logits` (V) with those of `seen` lowered (Keskar et al. 2019): a positive one is divided by `penalty`, a
 * negative one is multiplied by it; both stay finite.
 * @param {Logits} logits @param {Iterable<number>} seen @param {number} penalty
 */
export function penalizeRepetition(logits, seen, penalty) {
  const row = new Float32Array(logits);
  const factor = Math.fround(penalty);
  for (const id of seen) {
    const lowered = row[id] > 0 ? row[id] / factor : row[id] * factor;
    row[id] = Math.max(-LARGEST_FLOAT32, Math.min(LARGEST_FLOAT32, lowered));
  }
  return row;
}

/** The index of the largest logit, the first of equal ones. @param {Logits} logits */
export function likeliest(logits) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

/** The weights (V) after top-k, temperature, top-p and min-p. @param {Logits} logits @param {Rules} rules @returns {Float32Array} */
export function filteredWeights(logits, rules) {
  const { temperature, topK, topP, minP } = rules;
  const row = new Float32Array(logits);
  const largest = row[likeliest(row)];
  const limit = topK > 0 && topK < row.length ? row.slice().sort()[row.length - topK] : -Infinity;
  const weights = row.map((logit) =>
    logit < limit ? 0 : Math.exp(Math.fround(Math.fround(logit - largest) / Math.fround(temperature))),
  );
  if (topP < 1) keepTopP(weights, topP);
  const lowest = Math.fround(Math.fround(minP) * weights[likeliest(weights)]);
  return weights.map((weight) => (weight >= lowest ? weight : 0));
}

/**
 * Zeroes all but the smallest set with the share `p` of the sum; the lower ids win ties at its smallest weight.
 * @param {Float32Array} weights @param {number} p
 */
function keepTopP(weights, p) {
  const ranked = weights.slice().sort().reverse();
  let total = 0;
  for (const weight of ranked) total += weight;
  let mass = 0, last = 0;
  for (; last < ranked.length - 1; last++) {
    mass += ranked[last];
    if (mass >= p * total) break;
  }
  const smallest = ranked[last];
  let ties = last + 1;
  for (const weight of weights) if (weight > smallest) ties--;
  for (let id = 0; id < weights.length; id++) {
    const isKept = weights[id] > smallest || (weights[id] === smallest && ties-- > 0);
    if (!isKept) weights[id] = 0;
  }
}

/** The first token at which the running sum of `weights` exceeds `uniform` times their sum. @param {Float32Array} weights @param {number} uniform */
export function pick(weights, uniform) {
  let total = 0;
  for (const weight of weights) total += weight;
  let sum = 0, chosen = 0;
  for (let id = 0; id < weights.length; id++) {
    if (weights[id] === 0) continue;
    sum += weights[id];
    chosen = id;
    if (sum > uniform * total) break;
  }
  return chosen;
}

/** The sum of e^(logit - largest), and the largest logit: probability = e^(logit - largest) / sum. @param {Logits} logits */
export function normalizerOf(logits) {
  const largest = logits[likeliest(logits)];
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += Math.exp(logits[id] - largest);
  return { largest, sum };
}

/** The ids of the `count` largest logits, the largest first. @param {Logits} logits @param {number} count */
export function topIds(logits, count) {
  /** @type {number[]} */
  const ids = [];
  for (let id = 0; id < logits.length; id++) {
    if (ids.length === count && logits[id] <= logits[ids[count - 1]]) continue;
    let place = ids.length;
    while (place > 0 && logits[ids[place - 1]] < logits[id]) place--;
    ids.splice(place, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}

/** Uniform numbers in [0, 1) from a seed: the generator sfc32 of PractRand, whose state is four 32-bit words. @param {number} seed */
export function randomStream(seed) {
  let a = seed | 0, b = Math.floor(seed / 2 ** 32) | 0, c = 0x9e3779b9, counter = 1;
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let skipped = 0; skipped < 12; skipped++) next(); // mixes the seed into all words
  return next;
}
