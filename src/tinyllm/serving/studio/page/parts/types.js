/**
 * The answers of the server as types. Ids are the server's; the page never builds one.
 *
 * @typedef {{ id: string, name: string, parameters: number, vocab_size: number, context_length: number,
 *     layers: number, heads: number, has_chat: boolean, loaded: boolean, run: string | null }} Model
 * @typedef {"running" | "stopped" | "finished"} RunState
 * @typedef {{ id: string, name: string, state: RunState, step: number, num_steps: number | null,
 *     best_validation_loss: number | null, is_finite: boolean, updated: number }} RunSummary
 * `is_finite` says whether the last loss is a number
 * @typedef {{ id: string, name: string, num_documents: number, num_tokens: number, vocab_size: number,
 *     splits: string[] }} ShardsSummary
 * @typedef {{ id: string, name: string, vocab_size: number, kind: string }} TokenizerSummary
 * @typedef {{ folder: string | null, version: string, models: Model[], runs: RunSummary[], shards: ShardsSummary[],
 *     first_model: string | null, first_shards: string | null,
 *     tokenizers: TokenizerSummary[], is_whole: boolean }} Library
 * `is_whole` is false if the search of a large folder ended before it had seen all
 *
 * @typedef {"resume" | "skip" | "save" | "stop"} MarkKind
 * @typedef {{ step: number, kind: MarkKind, text: string }} Mark
 * @typedef {Record<string, Record<string, unknown>>} Config
 * @typedef {{ id: string, name: string, state: RunState, step: number, num_steps: number | null, tokens_per_step: number,
 *     config: Config, marks: Mark[], seconds_left: number | null, has_samples: boolean, parameters: number | null,
 *     problem: string | null }} Run
 *
 * @typedef {(number | null)[]} Column
 * @typedef {{ step: number[], tokens: Column, seconds: Column, loss: Column, learning_rate: Column,
 *     gradient_norm: Column, tokens_per_second: Column, memory_bytes: Column }} TrainingColumns
 * @typedef {{ step: number[], tokens: Column, seconds: Column, training_loss: Column, validation_loss: Column,
 *     bits_per_byte: Column }} EvaluationColumns
 * @typedef {{ training: TrainingColumns, evaluation: EvaluationColumns, num_lines: number, cursor: string }} Metrics
 * @typedef {{ step: number, prompt: string, text: string, validation_loss: number | null }} Sample
 *
 * @typedef {{ id: number, piece: string, bytes?: string }} Token `bytes` in hexadecimal
 * @typedef {{ index: number, num_tokens: number, tokens: Token[] }} Document
 * @typedef {{ index: number, before: string, match: string, after: string }} Match
 * @typedef {{ lengths: { edges: number[], counts: number[] },
 *     frequencies: { rank: number[], count: number[], piece: string[] }, unused: number,
 *     duplicates: { documents: number, groups: { count: number, indexes: number[], text: string }[] },
 *     sampled: boolean }} Statistics
 * @typedef {{ id: string, name: string, tokenizer: string | null,
 *     splits: Record<string, { num_documents: number, num_tokens: number }> }} Shards
 * @typedef {{ tokens: Token[], characters_per_token: number | null, bytes_per_token: number | null,
 *     vocab_size: number }} Pieces
 */
export {};
