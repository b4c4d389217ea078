/** Characters and bytes: what both kinds of tokenizers need. */

/**
 * A function that splits a text at the longest of `cuts`, from left to right: the sections between them, and the cuts.
 * @param {string[]} cuts
 */
export function cutter(cuts) {
  const longestFirst = [...cuts].sort((one, other) => other.length - one.length);
  const escaped = longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  const pattern = cuts.length > 0 ? new RegExp(escaped.join("|"), "gu") : null;
  /** @param {string} text */
  return function* (text) {
    let end = 0;
    for (const match of pattern === null ? [] : text.matchAll(pattern)) {
      yield { section: text.slice(end, match.index), isCut: false };
      yield { section: match[0], isCut: true };
      end = match.index + match[0].length;
    }
    yield { section: text.slice(end), isCut: false };
  };
}

/**
 * The characters at the start of `bytes`, and the bytes of an incomplete character at its end.
 *
 * A byte that cannot start a character becomes one U+FFFD, and decoding goes on at the next byte: SentencePiece's rule.
 * TextDecoder replaces a whole broken sequence by one U+FFFD.
 * @param {number[]} bytes @returns {[string, number[]]}
 */
export function takeCharacters(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const { size, isValid } = characterAt(bytes, at);
    if (isValid && at + size > bytes.length) return [text, bytes.slice(at)];
    text += isValid ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes.slice(at, at + size))) : "\ufffd";
    at += isValid ? size : 1;
  }
  return [text, []];
}

/** Size of the UTF-8 character at a place, and whether the bytes that are there can be it. @param {number[]} bytes @param {number} at */
function characterAt(bytes, at) {
  const lead = bytes[at];
  const size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  let isValid = lead < 0x80 || (lead >= 0xc2 && lead <= 0xf4);
  for (let index = 1; index < size && at + index < bytes.length; index++) {
    let low = 0x80, high = 0xbf;
    // The second byte excludes overlong characters, surrogates, and all beyond U+10FFFF.
    if (index === 1 && lead === 0xe0) low = 0xa0;
    if (index === 1 && lead === 0xed) high = 0x9f;
    if (index === 1 && lead === 0xf0) low = 0x90;
    if (index === 1 && lead === 0xf4) high = 0x8f;
    isValid &&= bytes[at + index] >= low && bytes[at + index] <= high;
  }
  return { size, isValid };
}

/** `text` without halves of characters (lone surrogates), which no tokenizer knows. @param {string} text */
export function wellFormed(text) {
  return text.replace(/[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]/g, (found) => (found.length === 2 ? found : "\ufffd"));
}
