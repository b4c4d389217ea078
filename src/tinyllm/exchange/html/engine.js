/**
 * The Llama decoder (Touvron et al. 2023) for one text, one token at a time.
 *
 *   x = embedding[token]
 *   x = x + attention(norm(x))        for each layer
 *   x = x + feed_forward(norm(x))
 *   logits = output * norm(x)
 *
 * Weights are read as they are stored; sums are 64-bit floats. Keys and values of earlier tokens are kept, so that each
 * token passes through the model once.
 *
 * Shapes: D model size, H query heads, K key/value heads, C channels of a head, F feed-forward size, V vocabulary.
 */

import { matrixOf, tensorOf } from "./weights.js";

const FIRST_POSITIONS = 128; // the cache begins small and doubles, up to the context

/** @typedef {import("./weights.js").Matrix} Matrix */
/** @typedef {ReturnType<typeof layerOf>} Layer */
/** @typedef {Float64Array | Float32Array} Floats */
/**
 * The shape of a model, with the names of tinyllm's settings.
 * @typedef {{num_layers: number, num_heads: number, num_kv_heads: number, head_size: number, hidden_size: number,
 *   intermediate_size: number, vocab_size: number, context_length: number, norm_eps: number, tie_embeddings: boolean}} Config
 */

/** out = matrix * x + bias. @param {Matrix} matrix @param {Floats} x @param {Floats} out */
export function multiply(matrix, x, out) {
  const { numbers, rows, columns } = matrix;
  let row = 0;
  // Four rows at once share each number of x, and no addition waits for the one before it.
  for (; row + 4 <= rows; row += 4) {
    let first = row * columns, second = first + columns, third = second + columns, fourth = third + columns;
    let a = 0, b = 0, c = 0, d = 0;
    for (let column = 0; column < columns; column++) {
      const value = x[column];
      a += numbers[first++] * value;
      b += numbers[second++] * value;
      c += numbers[third++] * value;
      d += numbers[fourth++] * value;
    }
    out[row] = a;
    out[row + 1] = b;
    out[row + 2] = c;
    out[row + 3] = d;
  }
  for (; row < rows; row++) {
    let sum = 0;
    for (let column = 0, at = row * columns; column < columns; column++, at++) sum += numbers[at] * x[column];
    out[row] = sum;
  }
  finish(matrix, out);
}

/** Applies the scale and the bias of each row. @param {Matrix} matrix @param {Floats} out */
function finish({ scales, biases, rows }, out) {
  if (scales !== null) for (let row = 0; row < rows; row++) out[row] *= scales[row];
  if (biases !== null) for (let row = 0; row < rows; row++) out[row] += biases[row];
}

/**
 * out = gain * x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019).
 * @param {Floats} x @param {ArrayLike<number>} gain @param {number} eps @param {Floats} out
 */
export function normalize(x, gain, eps, out) {
  let squares = 0;
  for (let index = 0; index < x.length; index++) squares += x[index] * x[index];
  const factor = 1 / Math.sqrt(squares / x.length + eps);
  for (let index = 0; index < x.length; index++) out[index] = gain[index] * x[index] * factor;
}

/**
 * Rotates channel i of each head together with channel i + C/2 (Su et al. 2021).
 * @param {Floats} heads @param {number} headSize @param {Floats} cosines @param {Floats} sines
 */
export function rotate(heads, headSize, cosines, sines) {
  const half = headSize / 2;
  for (let start = 0; start < heads.length; start += headSize) {
    for (let index = 0; index < half; index++) {
      const first = heads[start + index];
      const second = heads[start + index + half];
      heads[start + index] = first * cosines[index] - second * sines[index];
      heads[start + index + half] = first * sines[index] + second * cosines[index];
    }
  }
}

/** A loaded model, and the one text that it is reading. */
export class Engine {
  /**
   * @param {Config} config
   * @param {number[]} frequencies the rotary frequencies (C/2), in radians a token
   * @param {import("./weights.js").Tensors} tensors with Hugging Face's names
   */
  constructor(config, frequencies, tensors) {
    this.config = config;
    this.frequencies = frequencies;
    this.embedding = matrixOf(tensors, "model.embed_tokens");
    this.output = config.tie_embeddings ? this.embedding : matrixOf(tensors, "lm_head");
    this.norm = tensorOf(tensors, "model.norm.weight").numbers;
    this.layers = Array.from({ length: config.num_layers }, (_, index) => layerOf(tensors, `model.layers.${index}`));
    /** The tokens that the engine holds. @type {number[]} */
    this.tokens = [];
    this.capacity = 0;
    const attention = config.num_heads * config.head_size;
    const keys = config.num_kv_heads * config.head_size;
    const sizes = { x: config.hidden_size, normed: config.hidden_size, added: config.hidden_size, query: attention,
      heads: attention, key: keys, value: keys, gate: config.intermediate_size, up: config.intermediate_size };
    /** @type {Record<string, Float64Array>} */
    this.scratch = Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, new Float64Array(size)]));
    this.scores = new Float64Array(0);
    this.cosines = new Float64Array(config.head_size / 2);
    this.sines = new Float64Array(config.head_size / 2);
    this.logitNumbers = new Float64Array(config.vocab_size);
  }

  /** Forgets all tokens but the first `length`. @param {number} length */
  truncate(length) {
    this.tokens.length = length;
  }

  /** Appends a token: one pass through all layers. @param {number} token */
  read(token) {
    const { x, normed, added, gate, up } = this.scratch;
    const eps = this.config.norm_eps;
    const position = this.tokens.length;
    this.reserve(position + 1);
    this.setAngles(position);
    this.embed(token, x);
    for (const layer of this.layers) {
      normalize(x, layer.attentionNorm, eps, normed);
      this.attend(layer, position, normed, added);
      for (let index = 0; index < x.length; index++) x[index] += added[index];
      normalize(x, layer.feedForwardNorm, eps, normed);
      multiply(layer.gate, normed, gate);
      multiply(layer.up, normed, up);
      // SwiGLU (Shazeer 2020): silu(gate) * up.
      for (let index = 0; index < gate.length; index++) gate[index] *= up[index] / (1 + Math.exp(-gate[index]));
      multiply(layer.down, gate, added);
      for (let index = 0; index < x.length; index++) x[index] += added[index];
    }
    this.tokens.push(token);
  }

  /** The logits (V) of the token after the last one that was read. The array is reused. */
  logits() {
    normalize(this.scratch.x, this.norm, this.config.norm_eps, this.scratch.normed);
    multiply(this.output, this.scratch.normed, this.logitNumbers);
    return this.logitNumbers;
  }

  /** The row of a token in the embedding. @param {number} token @param {Floats} out */
  embed(token, out) {
    const { numbers, scales, columns } = this.embedding;
    const scale = scales === null ? 1 : scales[token];
    for (let index = 0; index < columns; index++) out[index] = numbers[token * columns + index] * scale;
  }

  /** Cosines and sines of a position's angles, rounded as in the models' training. @param {number} position */
  setAngles(position) {
    for (let index = 0; index < this.frequencies.length; index++) {
      const angle = Math.fround(position * this.frequencies[index]);
      this.cosines[index] = Math.fround(Math.cos(angle));
      this.sines[index] = Math.fround(Math.sin(angle));
    }
  }

  /**
   * out = o_proj * softmax(query * keys / sqrt(C)) * values; H / K query heads share a key/value head.
   * @param {Layer} layer @param {number} position @param {Floats} x @param {Floats} out
   */
  attend(layer, position, x, out) {
    const { num_heads: numHeads, num_kv_heads: numKvHeads, head_size: headSize } = this.config;
    const { query, key, value, heads } = this.scratch;
    multiply(layer.query, x, query);
    multiply(layer.key, x, key);
    multiply(layer.value, x, value);
    rotate(query, headSize, this.cosines, this.sines);
    rotate(key, headSize, this.cosines, this.sines);
    layer.keys.set(key, position * key.length);
    layer.values.set(value, position * value.length);
    heads.fill(0);
    for (let head = 0; head < numHeads; head++) {
      const shared = Math.floor(head / (numHeads / numKvHeads)) * headSize;
      this.attendHead(layer, position + 1, head * headSize, shared, key.length);
    }
    multiply(layer.attentionOutput, heads, out);
  }

  /**
   * Adds the values that one head attends to; `at` and `shared` are the head's places in queries and keys.
   * @param {Layer} layer @param {number} numPositions @param {number} at @param {number} shared @param {number} stride
   */
  attendHead(layer, numPositions, at, shared, stride) {
    const { keys, values } = layer;
    const { query, heads } = this.scratch;
    const { scores } = this;
    const size = this.config.head_size;
    const factor = 1 / Math.sqrt(size);
    let largest = -Infinity;
    for (let position = 0; position < numPositions; position++) {
      let score = 0;
      const row = position * stride + shared;
      for (let index = 0; index < size; index++) score += query[at + index] * keys[row + index];
      scores[position] = score * factor;
      if (scores[position] > largest) largest = scores[position];
    }
    let sum = 0;
    for (let position = 0; position < numPositions; position++) {
      scores[position] = Math.exp(scores[position] - largest);
      sum += scores[position];
    }
    for (let position = 0; position < numPositions; position++) {
      const weight = scores[position] / sum;
      const row = position * stride + shared;
      for (let index = 0; index < size; index++) heads[at + index] += weight * values[row + index];
    }
  }

  /** Makes room for `numPositions` keys and values in every layer. @param {number} numPositions */
  reserve(numPositions) {
    if (numPositions <= this.capacity) return;
    const { context_length: context, num_kv_heads: numKvHeads, head_size: headSize } = this.config;
    this.capacity = Math.min(Math.max(2 * this.capacity, FIRST_POSITIONS), context);
    if (numPositions > this.capacity) throw new Error(`${numPositions} tokens are more than the context of ${context}`);
    this.scores = new Float64Array(this.capacity);
    for (const layer of this.layers) {
      for (const name of /** @type {const} */ (["keys", "values"])) {
        const longer = new Float32Array(this.capacity * numKvHeads * headSize);
        longer.set(layer[name]);
        layer[name] = longer;
      }
    }
  }
}

/** The weights of a layer, and its cache. @param {import("./weights.js").Tensors} tensors @param {string} name */
function layerOf(tensors, name) {
  return {
    attentionNorm: tensorOf(tensors, `${name}.input_layernorm.weight`).numbers,
    query: matrixOf(tensors, `${name}.self_attn.q_proj`),
    key: matrixOf(tensors, `${name}.self_attn.k_proj`),
    value: matrixOf(tensors, `${name}.self_attn.v_proj`),
    attentionOutput: matrixOf(tensors, `${name}.self_attn.o_proj`),
    feedForwardNorm: tensorOf(tensors, `${name}.post_attention_layernorm.weight`).numbers,
    gate: matrixOf(tensors, `${name}.mlp.gate_proj`),
    up: matrixOf(tensors, `${name}.mlp.up_proj`),
    down: matrixOf(tensors, `${name}.mlp.down_proj`),
    keys: new Float32Array(0),
    values: new Float32Array(0),
  };
}
