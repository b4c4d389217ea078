/**
 * The page's worker: it holds the model and generates, so that the page never freezes.
 *
 *   page -> worker   {kind: "open", info, files}, {kind: "generate", run, text | ids, kept, forced, settings}, {kind: "stop"}
 *   worker -> page   {kind: "opened"}, {kind: "prompt", run, ids}, {kind: "token", run, ...}, {kind: "done", run, ...},
 *                    {kind: "error", run, message}
 */

import { ByteLevelTokenizer } from "./byte_level.js";
import { Engine } from "./engine.js";
import { TextGenerator } from "./generation.js";
import { SentencePieceTokenizer } from "./sentencepiece.js";
import { wellFormed } from "./text.js";
import { decodeBase64, readTensors } from "./weights.js";

const SLICE_MILLISECONDS = 12; // time between two looks at the page's messages

/**
 * @typedef {{title: string, prompt: string, numbers: "int8" | "bf16", num_parameters: number, rope_frequencies: number[],
 *   config: import("./engine.js").Config,
 *   tokenizer: import("./generation.js").TokenizerRules & {rule: string | null}}} Info
 * @typedef {{run: number, text: string, ids: number[] | null, kept: number[], forced: number | null,
 *   settings: import("./generation.js").Settings}} Order
 */

/**
 * A generator from what the page holds.
 * @param {Info} info the page's description of the model @param {Record<string, string>} files name -> base64 text
 */
export function openModel(info, files) {
  const { rule } = info.tokenizer;
  const tokenizer = rule === null
    ? new SentencePieceTokenizer(decodeBase64(files["tokenizer.model"]))
    : new ByteLevelTokenizer(decodeBase64(files["tokenizer.json"]), rule);
  const engine = new Engine(info.config, info.rope_frequencies, readTensors(decodeBase64(files["model.safetensors"])));
  return new TextGenerator(engine, tokenizer, info.tokenizer);
}

/** @type {TextGenerator | null} */
let generator = null;
let currentRun = 0;

/** Writes a text. @param {TextGenerator} generator @param {Order} order */
async function generate(generator, { run, text, ids, kept, forced, settings }) {
  const prompt = ids ?? generator.promptIds(wellFormed(text));
  self.postMessage({ kind: "prompt", run, ids: prompt });
  let started = 0, count = 0, resumed = performance.now();
  for (const token of generator.generate(prompt, kept, forced, settings)) {
    if (token !== null) {
      // The first token is the end of reading: the rate counts the others.
      if (count === 0) started = performance.now();
      count++;
      const seconds = (performance.now() - started) / 1000;
      self.postMessage({ kind: "token", run, ...token, rate: count > 1 ? (count - 1) / seconds : 0 });
    }
    if (performance.now() - resumed > SLICE_MILLISECONDS) {
      await nextMessage();
      resumed = performance.now();
      if (run !== currentRun) return;
    }
  }
  self.postMessage({ kind: "done", run });
}

/** Lets messages in. A channel is faster than a timer, which waits 4 ms. */
function nextMessage() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve(undefined);
    };
    port2.postMessage(null);
  });
}

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "open") {
      generator = openModel(data.info, data.files);
      self.postMessage({ kind: "opened" });
    } else if (data.kind === "stop") {
      currentRun = 0;
    } else {
      currentRun = data.run;
      if (generator !== null) await generate(generator, data);
    }
  } catch (error) {
    self.postMessage({ kind: "error", run: data.run ?? 0, message: error instanceof Error ? error.message : String(error) });
  }
};
