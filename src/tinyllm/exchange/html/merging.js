/** Byte-pair merging (Sennrich et al. 2016) with a priority queue: the part that both kinds of tokenizers share. */

/**
 * A symbol of the text: characters `start` to `end`; a frozen one never merges.
 * @typedef {{start: number, end: number, value: number, isFrozen: boolean}} Symbol
 */

/** @typedef {{rank: number, value: number, left: number, right: number, start: number, end: number}} Candidate a merge */

/**
 * Merges neighbours until no pair is known. The pair of the lowest rank merges first, the leftmost of equal ones.
 *
 * @param {Symbol[]} symbols
 * @param {(left: Symbol, right: Symbol) => {rank: number, value: number} | undefined} find the merge of a pair
 * @returns {Symbol[]}
 */
export function mergePairs(symbols, find) {
  const previous = symbols.map((_, index) => index - 1);
  const next = symbols.map((_, index) => (index + 1 < symbols.length ? index + 1 : -1));
  /** @type {(Symbol | null)[]} */
  const merged = symbols.map((symbol) => ({ ...symbol }));
  /** @type {Candidate[]} */
  const queue = [];
  const push = (/** @type {number} */ left, /** @type {number} */ right) => {
    const [one, other] = [merged[left], merged[right]];
    if (!one || !other || one.isFrozen || other.isFrozen) return;
    const found = find(one, other);
    if (found) pushCandidate(queue, { ...found, left, right, start: one.start, end: other.end });
  };
  for (let index = 0; index + 1 < merged.length; index++) push(index, index + 1);
  while (queue.length > 0) {
    const { left, right, start, end, value } = popCandidate(queue);
    // A candidate is stale if one of its symbols has merged since: then it starts or ends elsewhere.
    const isCurrent = next[left] === right && merged[left]?.start === start && merged[right]?.end === end;
    if (!isCurrent) continue;
    merged[left] = { start, end, value, isFrozen: false };
    merged[right] = null;
    next[left] = next[right];
    if (next[right] >= 0) previous[next[right]] = left;
    push(previous[left], left);
    push(left, next[left]);
  }
  return merged.filter((symbol) => symbol !== null);
}

/** @param {Candidate} one @param {Candidate} other */
function precedes(one, other) {
  return one.rank < other.rank || (one.rank === other.rank && one.left < other.left);
}

/** Adds to a binary heap whose first item precedes all others. @param {Candidate[]} heap @param {Candidate} item */
function pushCandidate(heap, item) {
  let place = heap.length;
  heap.push(item);
  while (place > 0) {
    const parent = (place - 1) >> 1;
    if (!precedes(item, heap[parent])) break;
    heap[place] = heap[parent];
    place = parent;
  }
  heap[place] = item;
}

/** Takes the first item out of the heap, which has one. @param {Candidate[]} heap */
function popCandidate(heap) {
  const first = heap[0];
  const item = /** @type {Candidate} */ (heap.pop());
  let place = 0;
  while (heap.length > 0) {
    let child = 2 * place + 1;
    if (child + 1 < heap.length && precedes(heap[child + 1], heap[child])) child++;
    if (child >= heap.length || !precedes(heap[child], item)) {
      heap[place] = item;
      break;
    }
    heap[place] = heap[child];
    place = child;
  }
  return first;
}
