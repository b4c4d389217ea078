/**
 * The playground's types.
 *
 * @typedef {object} Settings How tokens are drawn.
 * @property {number} temperature
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} min_p
 * @property {number} repetition_penalty
 * @property {number} max_tokens
 * @property {number} seed
 *
 * @typedef {{ id: number, piece: string, bytes?: string | undefined, logprob: number }} Rival
 * @typedef {Rival & { rivals: Rival[] }} Written A generated token.
 * @typedef {{ id: number, piece: string, bytes?: string | undefined, logprob: number | null }} PromptToken
 * @typedef {"waiting" | "writing" | "done" | "stopped" | "failed"} BranchState
 * @typedef {{ shell: string, python: string, curl: string }} Commands
 *
 * @typedef {object} Branch A continuation; the first one of a sample has no parent.
 * @property {number | null} parent index of the branch that it leaves
 * @property {number} start the place where it leaves
 * @property {number | null} token id of the token that it takes there; null goes on at the end
 * @property {Settings} settings
 * @property {Written[]} tokens its own
 * @property {BranchState} state
 * @property {unknown} problem why it failed
 * @property {string} reason why it ended: "stop" or "length"
 * @property {number | null} speed in tokens per second
 * @property {Commands | null} commands the same from elsewhere
 * @property {boolean} removed
 *
 * @typedef {object} Sample One column: a model and its tree.
 * @property {string} model
 * @property {number} offset added to the seed: 0 for the first sample of a model
 * @property {PromptToken[]} prompt
 * @property {Branch[]} branches
 * @property {number} active index of the branch that is shown
 * @property {Set<number>} folded
 *
 * @typedef {{ tokens: (Rival & { probability: number })[], kept: number, entropy: number, covered: number }} NextAnswer
 */
export {};
