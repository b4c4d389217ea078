/**
 * Reads SentencePiece's `tokenizer.model`: pieces and the settings that decide how text becomes ids.
 *
 * The field numbers are those of `sentencepiece_model.proto` in google/sentencepiece.
 */

export const NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, BYTE = 6;
const VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5;
const SPACING_FIELD = 200; // tinyllm's own, in the range reserved for extensions

/** @typedef {{text: string, score: number, type: number}} Piece */
/** @typedef {Map<number, any>} Fields number of a field -> integer or bytes, as its kind says */

/** @param {Uint8Array} bytes */
export function parseModel(bytes) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** @type {Piece[]} */
  const pieces = [];
  let spacing = 0;
  /** @type {Fields} */
  let trainer = new Map();
  /** @type {Fields} */
  let normalizer = new Map();
  for (const [number, value] of fieldsOf(bytes)) {
    if (number === 1) pieces.push(pieceOf(value, decoder));
    else if (number === 2) trainer = new Map([...trainer, ...fieldsOf(value)]);
    else if (number === 3) normalizer = new Map([...normalizer, ...fieldsOf(value)]);
    else if (number === SPACING_FIELD) spacing = value;
  }
  return {
    pieces,
    spacing,
    byteFallback: Boolean(trainer.get(35) ?? 0),
    unknownText: trainer.has(44) ? decoder.decode(trainer.get(44)) : " \u2047 ",
    addDummyPrefix: Boolean(normalizer.get(3) ?? 1),
    removeExtraSpaces: Boolean(normalizer.get(4) ?? 1),
  };
}

/** @param {Uint8Array} bytes @param {TextDecoder} decoder @returns {Piece} */
function pieceOf(bytes, decoder) {
  /** @type {Fields} */
  const fields = new Map(fieldsOf(bytes));
  const score = fields.get(2);
  return {
    text: decoder.decode(fields.get(1)),
    score: score ? new DataView(score.buffer, score.byteOffset).getFloat32(0, true) : 0,
    type: fields.get(3) ?? NORMAL,
  };
}

/**
 * The fields of a protobuf message in order: [number, integer or bytes].
 * @param {Uint8Array} bytes @returns {Generator<[number, any]>}
 */
function* fieldsOf(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, factor = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 0x7f) * factor;
      factor *= 128;
    } while (byte >= 0x80);
    return value;
  };
  while (at < bytes.length) {
    const key = varint();
    const number = Math.floor(key / 8), kind = key % 8;
    if (kind === VARINT) {
      yield [number, varint()];
      continue;
    }
    if (kind !== BYTES && kind !== FIXED32 && kind !== FIXED64) throw new Error("the tokenizer is damaged");
    const size = kind === BYTES ? varint() : kind === FIXED32 ? 4 : 8;
    yield [number, bytes.subarray(at, at + size)];
    at += size;
  }
}
