/**
 * Opens what the page holds: base64 text becomes bytes, and bytes in the layout of safetensors become matrices.
 *
 * A file is the length of a JSON header (uint64), the header (name -> dtype, shape, first and last byte), and the data.
 * A matrix has 8-bit whole numbers with one scale for each row, or numbers of bfloat16.
 */

const BASE64_CHUNK = 1 << 20; // a multiple of 4 characters: each chunk is decoded alone

/** @typedef {{numbers: Int8Array | Float32Array, shape: number[]}} Tensor */
/** @typedef {Map<string, Tensor>} Tensors by Hugging Face's names */
/**
 * @typedef {{numbers: Int8Array | Float32Array, scales: Float32Array | null, biases: Float32Array | null,
 *   rows: number, columns: number}} Matrix
 */

/** The bytes of base64 text. @param {string} text @returns {Uint8Array} */
export function decodeBase64(text) {
  text = text.trim();
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  for (let start = 0, at = 0; start < text.length; start += BASE64_CHUNK) {
    const part = atob(text.slice(start, start + BASE64_CHUNK));
    for (let index = 0; index < part.length; index++) bytes[at++] = part.charCodeAt(index);
  }
  return bytes;
}

/** The tensors of a safetensors file by name. @param {Uint8Array} bytes */
export function readTensors(bytes) {
  const headerBytes = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const start = 8 + headerBytes;
  /** @type {Record<string, {dtype: string, shape: number[], data_offsets: [number, number]}>} */
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  /** @type {Tensors} */
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: [first, last] }] of Object.entries(header)) {
    if (start + last > bytes.length) throw new Error(`the weights end before ${name}: the file was cut off`);
    const place = bytes.byteOffset + start + first;
    tensors.set(name, { numbers: viewOf(dtype, bytes.buffer, place, last - first), shape });
  }
  return tensors;
}

/** The numbers of a tensor. @param {string} dtype @param {ArrayBufferLike} buffer @param {number} place @param {number} numBytes */
function viewOf(dtype, buffer, place, numBytes) {
  switch (dtype) {
    case "I8":
      return new Int8Array(buffer, place, numBytes);
    case "F32":
      return new Float32Array(buffer, place, numBytes / 4);
    case "BF16":
      return widen(new Uint16Array(buffer, place, numBytes / 2));
  }
  throw new Error(`the weights have the type ${dtype}, which this page does not know`);
}

/** The float32 numbers of bfloat16 bits, which are the upper half of each. @param {Uint16Array} bits */
function widen(bits) {
  const numbers = new Float32Array(bits.length);
  const words = new Uint32Array(numbers.buffer);
  for (let index = 0; index < bits.length; index++) words[index] = bits[index] << 16;
  return numbers;
}

/** The tensor of a name, which the file has. @param {Tensors} tensors @param {string} name */
export function tensorOf(tensors, name) {
  return /** @type {Tensor} */ (tensors.get(name));
}

/** The matrix `NAME.weight` with its scales and biases, if it has them. @param {Tensors} tensors @param {string} name @returns {Matrix} */
export function matrixOf(tensors, name) {
  const { numbers, shape } = tensorOf(tensors, `${name}.weight`);
  const ofRows = (/** @type {string} */ each) => /** @type {Float32Array | null} */ (tensors.get(each)?.numbers ?? null);
  return {
    numbers,
    scales: ofRows(`${name}.weight.scales`),
    biases: ofRows(`${name}.bias`),
    rows: shape[0],
    columns: shape[1],
  };
}
