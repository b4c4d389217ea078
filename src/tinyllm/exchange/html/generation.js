/**
 * The loop of generation: ids in, one token at a time out, with the probability that the model gave it.
 *
 * When the context is full, the window keeps its last half and the model reads that again, as tinyllm does.
 */

import { choose, normalizerOf, randomStream, topIds } from "./sampling.js";

const NUM_RIVALS = 10;

/** @typedef {import("./sampling.js").Rules & {maxNewTokens: number, seed: number}} Settings */
/** @typedef {import("./sentencepiece.js").SentencePieceTokenizer | import("./byte_level.js").ByteLevelTokenizer} Tokenizer */
/** @typedef {{bos_id: number, begins_with_bos: boolean, end_ids: number[]}} TokenizerRules */
/** @typedef {{text: string, isBytes: boolean, isEnd: boolean}} Label a token for people */
/** @typedef {{id: number, probability: number, label: Label}} Rival */
/** @typedef {Rival & {rivals: Rival[], text: string, reason: "end" | "length" | null}} Token that was drawn */

/** An engine with its tokenizer. */
export class TextGenerator {
  /** @param {import("./engine.js").Engine} engine @param {Tokenizer} tokenizer @param {TokenizerRules} rules of the tokenizer */
  constructor(engine, tokenizer, rules) {
    const { bos_id: bosId, begins_with_bos: beginsWithBos, end_ids: endIds } = rules;
    this.engine = engine;
    this.tokenizer = tokenizer;
    this.beginning = beginsWithBos ? [bosId] : [];
    this.endIds = new Set(endIds);
    /** @type {Map<number, Label>} */
    this.labels = new Map();
  }

  /** The ids of a prompt. Throws an error for a prompt that the model cannot begin with. @param {string} text */
  promptIds(text) {
    const ids = [...this.beginning, ...this.tokenizer.encode(text)];
    const context = this.engine.config.context_length;
    if (ids.length === 0) throw new Error("empty-prompt");
    if (ids.length > context) throw new Error("long-prompt");
    return ids;
  }

  /**
   * Yields null for each token that is read before the first is drawn, then each drawn token.
   *
   * `kept` are tokens that an earlier call drew after `prompt`. `forced`, if not null, is the first token to take.
   * @param {number[]} prompt @param {number[]} kept @param {number | null} forced @param {Settings} settings
   * @returns {Generator<Token | null, void>}
   */
  *generate(prompt, kept, forced, settings) {
    const window = [...prompt];
    const decoder = this.tokenizer.stream();
    for (const id of prompt) decoder.push(id); // drops the space before the first word of a text
    for (const id of kept) {
      this.append(window, id);
      decoder.push(id);
    }
    const random = randomStream(settings.seed);
    const seen = new Set([...prompt, ...kept]); // all of the text: the window may be shorter
    for (let count = 1; count <= settings.maxNewTokens; count++) {
      yield* this.readWindow(window);
      const logits = this.engine.logits();
      const id = forced !== null && count === 1 ? forced : choose(logits, seen, random(), settings);
      const hasEnded = this.endIds.has(id);
      const isLast = hasEnded || count === settings.maxNewTokens;
      const text = (hasEnded ? "" : decoder.push(id)) + (isLast ? decoder.finish() : "");
      yield { ...this.describe(id, logits), text, reason: hasEnded ? "end" : isLast ? "length" : null };
      if (isLast) return;
      seen.add(id);
      this.append(window, id);
    }
  }

  /** Appends to the window; one that is full keeps its last half. @param {number[]} window @param {number} id */
  append(window, id) {
    const context = this.engine.config.context_length;
    window.push(id);
    if (window.length > context) window.splice(0, window.length - Math.max(1, Math.floor(context / 2)));
  }

  /**
   * Reads the tokens of `window` that the engine does not hold, and at least the last one; yields null between them.
   * @param {number[]} window @returns {Generator<null, void>}
   */
  *readWindow(window) {
    const { tokens } = this.engine;
    let shared = 0;
    while (shared < tokens.length && shared < window.length - 1 && tokens[shared] === window[shared]) shared++;
    this.engine.truncate(shared);
    for (; shared < window.length; shared++) {
      this.engine.read(window[shared]);
      if (shared + 1 < window.length) yield null;
    }
  }

  /**
   * Probability and likeliest rivals of a token, under the model itself: before temperature and filters.
   * @param {number} id @param {Float64Array} logits
   */
  describe(id, logits) {
    const { largest, sum } = normalizerOf(logits);
    const probabilityOf = (/** @type {number} */ token) => Math.exp(logits[token] - largest) / sum;
    const rivals = topIds(logits, NUM_RIVALS).map((rival) => {
      return { id: rival, probability: probabilityOf(rival), label: this.labelOf(rival) };
    });
    return { id, probability: probabilityOf(id), label: this.labelOf(id), rivals };
  }

  /** A token for people: its text, or its bytes if they are no whole characters, and whether it ends a text. @param {number} id */
  labelOf(id) {
    const label = this.labels.get(id) ?? { ...readableBytes(this.tokenizer.bytesOf(id)), isEnd: this.endIds.has(id) };
    this.labels.set(id, label);
    return label;
  }
}

/** @param {Uint8Array} bytes */
function readableBytes(bytes) {
  try {
    return { text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes), isBytes: false };
  } catch {
    const hex = Array.from(bytes, (byte) => byte.toString(16).toUpperCase().padStart(2, "0"));
    return { text: hex.join(" "), isBytes: true };
  }
}
