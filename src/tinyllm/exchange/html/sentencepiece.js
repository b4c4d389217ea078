/**
 * SentencePiece BPE (Kudo & Richardson 2018) with byte fallback: ids and texts are those of tinyllm's `codec.py`.
 */

import { mergePairs } from "./merging.js";
import { BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, parseModel } from "./model_proto.js";
import { cutter, takeCharacters } from "./text.js";

const SPACE = "\u2581"; // SentencePiece's character for a space
const WHOLE = 0, FIRST = 2, ALWAYS = 3; // rules for the space before a text, as in tinyllm's `model_proto.py`

/** A tokenizer from the bytes of a `tokenizer.model`. */
export class SentencePieceTokenizer {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.proto = parseModel(bytes);
    this.pieces = this.proto.pieces;
    this.ids = new Map(this.pieces.map((piece, id) => [piece.text, id]));
    this.unknownId = this.pieces.findIndex((piece) => piece.type === UNKNOWN);
    const mergeable = (/** @type {import("./model_proto.js").Piece} */ { type }) => type === NORMAL || type === USER_DEFINED;
    this.mergeable = new Set(this.pieces.flatMap((piece, id) => (mergeable(piece) ? [id] : [])));
    const userDefined = this.pieces.filter((piece) => piece.type === USER_DEFINED).map((piece) => piece.text);
    this.findUserDefined = prefixMatcher(userDefined);
    const cuts = userDefined.filter((text) => !text.startsWith(SPACE));
    this.cut = cutter(this.proto.spacing === WHOLE ? [] : cuts);
  }

  /** The ids of `text`, without BOS. Control pieces such as `<s>` are ordinary text. @param {string} text */
  encode(text) {
    /** @type {number[]} */
    let ids = [];
    let isFirst = true;
    for (const { section, isCut } of this.cut(text)) {
      if (isCut) ids.push(this.ids.get(section) ?? this.unknownId);
      else ids = ids.concat(this.encodeSection(section, isFirst));
      isFirst &&= section === "";
    }
    return ids;
  }

  /** @param {string} text @param {boolean} isFirst whether it begins the whole text */
  encodeSection(text, isFirst) {
    const { spacing, addDummyPrefix } = this.proto;
    const beginsWithSpace = text.startsWith(" ") || text.startsWith(SPACE);
    const isBare =
      ((spacing === FIRST || spacing === ALWAYS) && beginsWithSpace) || (spacing === FIRST && !isFirst);
    return this.encodeNormalized(this.normalize(text, addDummyPrefix && !isBare));
  }

  /**
   * `text` with ▁ for spaces, a first ▁ if `hasPrefix`, and without extra spaces if the model removes them.
   * @param {string} text @param {boolean} hasPrefix
   */
  normalize(text, hasPrefix) {
    const removes = this.proto.removeExtraSpaces;
    let chunks = this.symbolsOf(text).map(({ start, end }) => text.slice(start, end));
    if (removes) {
      const first = chunks.findIndex((chunk) => chunk !== " ");
      chunks = first < 0 ? [] : chunks.slice(first);
    }
    if (chunks.length === 0) return "";
    let normalized = hasPrefix ? SPACE : "";
    let followsSpace = removes;
    for (let chunk of chunks) {
      if (followsSpace) chunk = chunk.replace(/^ +/, "");
      normalized += chunk.replaceAll(" ", SPACE);
      if (chunk !== "") followsSpace = removes && chunk.endsWith(" ");
    }
    return removes ? normalized.replace(/\u2581+$/, "") : normalized;
  }

  /** Characters of `text`, and whole user-defined pieces, which never merge. @param {string} text */
  symbolsOf(text) {
    const symbols = [];
    for (let start = 0; start < text.length; ) {
      const found = this.findUserDefined(text, start);
      const end = start + (found || ((text.codePointAt(start) ?? 0) > 0xffff ? 2 : 1));
      symbols.push({ start, end, value: 0, isFrozen: found > 0 });
      start = end;
    }
    return symbols;
  }

  /** @param {string} text */
  encodeNormalized(text) {
    const merged = mergePairs(this.symbolsOf(text), (left, right) => {
      const id = this.ids.get(text.slice(left.start, right.end));
      return id !== undefined && this.mergeable.has(id) ? { rank: -this.pieces[id].score, value: id } : undefined;
    });
    /** @type {number[]} */
    const ids = [];
    let followsUnknown = false;
    for (const { start, end } of merged) {
      const id = this.ids.get(text.slice(start, end)) ?? this.unknownId;
      const isUnknown = id === this.unknownId;
      if (isUnknown && this.proto.byteFallback) ids.push(...this.byteIds(text.slice(start, end)));
      else if (!(isUnknown && followsUnknown)) ids.push(id); // unknown characters in a row are one token
      followsUnknown = isUnknown && !this.proto.byteFallback;
    }
    return ids;
  }

  /** @param {string} text */
  byteIds(text) {
    const hex = (/** @type {number} */ byte) => byte.toString(16).toUpperCase().padStart(2, "0");
    return Array.from(new TextEncoder().encode(text), (byte) => this.ids.get(`<0x${hex(byte)}>`) ?? this.unknownId);
  }

  /** The bytes that a token decodes to; none for a control token. @param {number} id @returns {Uint8Array} */
  bytesOf(id) {
    const { text, type } = this.pieces[id];
    if (type === CONTROL) return new Uint8Array(0);
    if (type === BYTE) return Uint8Array.of(parseInt(text.slice(3, 5), 16));
    return new TextEncoder().encode(type === UNKNOWN ? this.proto.unknownText : text.replaceAll(SPACE, " "));
  }

  /** A decoder that accepts one id at a time. */
  stream() {
    return new SentencePieceStream(this);
  }
}

/** Decodes a stream of tokens; bytes wait until they form a character. */
class SentencePieceStream {
  /** @param {SentencePieceTokenizer} tokenizer */
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    /** @type {number[]} */
    this.pending = [];
    this.isAtStart = true;
    this.dropsAll = tokenizer.proto.removeExtraSpaces;
    this.dropsFirst = tokenizer.proto.addDummyPrefix || this.dropsAll;
  }

  /** The text that `id` completes, possibly empty. @param {number} id */
  push(id) {
    const { text: piece, type } = this.tokenizer.pieces[id];
    let text;
    if (type === BYTE) [text, this.pending] = takeCharacters([...this.pending, ...this.tokenizer.bytesOf(id)]);
    else text = this.finish();
    this.isAtStart &&= text === "";
    if (type === NORMAL || type === USER_DEFINED) {
      text += this.withoutFirstSpace(piece).replaceAll(SPACE, " ");
    } else if (type === UNKNOWN) {
      text += this.tokenizer.proto.unknownText;
      this.isAtStart &&= text === "";
    }
    return text;
  }

  /** One U+FFFD for each byte that waits. */
  finish() {
    const text = "\ufffd".repeat(this.pending.length);
    this.pending = [];
    return text;
  }

  /** Drops the space that encoding adds before a text, or all of them if encoding drops extra spaces. @param {string} piece */
  withoutFirstSpace(piece) {
    if (!(this.isAtStart && this.dropsFirst && piece.startsWith(SPACE))) {
      this.isAtStart = false;
      return piece;
    }
    this.isAtStart = this.dropsAll && piece === SPACE;
    return piece.slice(1);
  }
}

/**
 * A function that returns the length of the longest of `texts` at a place of a text, or 0.
 * @param {string[]} texts @returns {(text: string, start: number) => number}
 */
function prefixMatcher(texts) {
  /** @type {Map<string, string[]>} */
  const byFirst = new Map();
  for (const text of [...texts].sort((one, other) => other.length - one.length)) {
    byFirst.set(text[0], [...(byFirst.get(text[0]) ?? []), text]);
  }
  return (text, start) => byFirst.get(text[start])?.find((each) => text.startsWith(each, start))?.length ?? 0;
}
