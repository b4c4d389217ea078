/**
 * Byte-level BPE (Radford et al. 2019) from a `tokenizer.json`: ids and texts are those of the library `tokenizers`.
 *
 * A rule splits a text into words. The bytes of a word, each written as a printable character, are merged by rank.
 */

import { mergePairs } from "./merging.js";
import { CONTROL, NORMAL, USER_DEFINED } from "./model_proto.js";
import { cutter } from "./text.js";

// \p{White_Space} is Unicode's, as in `tokenizers`; JavaScript's \s has U+FEFF and lacks U+0085.
const GPT2_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
const LLAMA3_WORDS =
  /'[sS\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*|\p{White_Space}*[\r\n]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** A function that finds all matches of a pattern in a text. @param {RegExp} pattern @returns {(text: string) => string[]} */
const words = (pattern) => (text) => text.match(pattern) ?? [];

/** The rule with llama.cpp's name -> the words of a text. @type {Record<string, (text: string) => string[]>} */
const SPLITTERS = {
  "gpt-2": words(GPT2_WORDS),
  smollm: (text) => text.split(/(\p{N})/u).flatMap(words(GPT2_WORDS)), // digits stand alone
  "llama-bpe": words(LLAMA3_WORDS),
};

/** @typedef {{content: string, id: number, special?: boolean, normalized?: boolean}} AddedToken */
/** @typedef {ReturnType<typeof cutter>} Cutter */

/** A tokenizer from the bytes of a `tokenizer.json`; `rule` names how it splits a text into words. */
export class ByteLevelTokenizer {
  /** @param {Uint8Array} bytes @param {string} rule */
  constructor(bytes, rule) {
    const { model, added_tokens: found } = JSON.parse(new TextDecoder().decode(bytes));
    const added = /** @type {AddedToken[]} */ (found ?? []);
    this.split = SPLITTERS[rule];
    this.keepsKnownWords = model.ignore_merges === true;
    /** @type {Map<string, number>} */
    this.ids = new Map(Object.entries(model.vocab));
    /** @type {{text: string, type: number}[]} */
    this.pieces = [];
    for (const [text, id] of this.ids) this.pieces[id] = { text, type: NORMAL };
    for (const { content, id, special } of added) {
      this.pieces[id] = { text: content, type: special ? CONTROL : USER_DEFINED };
    }
    this.addedIds = new Map(added.map(({ content, id }) => [content, id]));
    const texts = (/** @type {boolean} */ isNormalized) =>
      added.filter(({ normalized }) => Boolean(normalized) === isNormalized).map(({ content }) => content);
    this.cuts = [cutter(texts(false)), cutter(texts(true))];
    this.merges = this.mergesOf(model.merges ?? []);
    this.characters = characterOfByte();
    this.byteOf = new Map(this.characters.map((character, byte) => [character, byte]));
  }

  /** left id, right id -> rank and id of the merged token; the key is one number. @param {(string | string[])[]} merges */
  mergesOf(merges) {
    /** @type {Map<number, {rank: number, value: number}>} */
    const found = new Map();
    merges.forEach((merge, rank) => {
      const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
      const key = pairKey(this.idOf(left), this.idOf(right));
      found.set(key, { rank, value: this.idOf(left + right) });
    });
    return found;
  }

  /** The id of a piece that the vocabulary has. @param {string} piece */
  idOf(piece) {
    return /** @type {number} */ (this.ids.get(piece));
  }

  /** The ids of `text`, without BOS. Special tokens in it are ordinary text. @param {string} text */
  encode(text) {
    return this.encodeBetween(text, this.cuts);
  }

  /**
   * The ids of a text between added tokens, which the cutters find one after another.
   * @param {string} text @param {Cutter[]} cutters @returns {number[]}
   */
  encodeBetween(text, cutters) {
    const [cut, ...others] = cutters;
    if (!cut) return this.split(text).flatMap((word) => this.encodeWord(word));
    /** @type {number[]} */
    let ids = [];
    let plain = "";
    for (const { section, isCut } of cut(text)) {
      const id = this.addedIds.get(section);
      if (!isCut || id === undefined || this.pieces[id].type === CONTROL) {
        plain += section;
        continue;
      }
      ids = ids.concat(this.encodeBetween(plain, others), id);
      plain = "";
    }
    return ids.concat(this.encodeBetween(plain, others));
  }

  /** @param {string} word */
  encodeWord(word) {
    const text = Array.from(new TextEncoder().encode(word), (byte) => this.characters[byte]).join("");
    if (this.keepsKnownWords && this.ids.has(text)) return [this.idOf(text)];
    const symbols = Array.from(text, (character, start) => {
      return { start, end: start + 1, value: this.idOf(character), isFrozen: false };
    });
    return mergePairs(symbols, (left, right) => this.merges.get(pairKey(left.value, right.value))).map(({ value }) => value);
  }

  /** The bytes that a token decodes to; none for a control token. @param {number} id @returns {Uint8Array} */
  bytesOf(id) {
    const { text, type } = this.pieces[id];
    if (type === CONTROL) return new Uint8Array(0);
    const bytes = Array.from(text, (character) => this.byteOf.get(character));
    // An added token may hold a character that stands for no byte: then its text is plain.
    const isPlain = bytes.includes(undefined);
    return isPlain ? new TextEncoder().encode(text) : Uint8Array.from(/** @type {number[]} */ (bytes));
  }

  /** A decoder that accepts one id at a time. */
  stream() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (/** @type {number} */ id) => decoder.decode(this.bytesOf(id), { stream: true }),
      finish: () => decoder.decode(),
    };
  }
}

/** @param {number} left @param {number} right */
function pairKey(left, right) {
  return left * 2 ** 26 + right;
}

/** The printable character of each byte: itself if it is printable Latin-1, else a character from U+0100 on. */
function characterOfByte() {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(isPrintable ? byte : next++);
  });
}
