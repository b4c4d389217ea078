// Runs the engine of an exported page in Node: node page_engine.mjs PAGE.html < requests.json > answers.json
//
// A request is {op: "encode", text}, {op: "decode", ids}, {op: "generate", ids, kept, settings},
// {op: "logits", ids} or {op: "weights", logits, settings}; the answers stand in the same order.
import { readFileSync } from "node:fs";

const page = readFileSync(process.argv[2], "utf8");
const between = (start) => {
  const begin = page.indexOf(start) + start.length;
  return page.slice(begin, page.indexOf("</script>", begin));
};
const source = between('<script type="text/plain" id="engine">');
const info = JSON.parse(between('<script type="application/json" id="info">'));
const files = Object.fromEntries(Object.keys(info.sha256).map((name) => [name, between(`data-file="${name}">`)]));
const { openModel, filteredWeights, pick } = new Function("self", `${source}\nreturn { openModel, filteredWeights, pick };`)({});
const generator = openModel(info, files);

function decode(ids) {
  const decoder = generator.tokenizer.stream();
  return [...ids.map((id) => decoder.push(id)), decoder.finish()];
}

function generate({ ids, kept, forced, settings }) {
  const tokens = [...generator.generate(ids, kept ?? [], forced ?? null, settings)].filter((token) => token !== null);
  return {
    ids: tokens.map(({ id }) => id),
    text: tokens.map(({ text }) => text).join(""),
    probabilities: tokens.map(({ probability }) => probability),
    rivals: tokens.map(({ rivals }) => rivals.map(({ id }) => id)),
    reason: tokens.at(-1).reason,
  };
}

function logits(ids) {
  generator.engine.truncate(0);
  return ids.map((id) => {
    generator.engine.read(id);
    return Array.from(generator.engine.logits());
  });
}

const operations = {
  encode: ({ text }) => generator.tokenizer.encode(text),
  prompt: ({ text }) => generator.promptIds(text),
  decode: ({ ids }) => decode(ids),
  generate,
  logits: ({ ids }) => logits(ids),
  weights: ({ logits: row, settings }) => Array.from(filteredWeights(Float64Array.from(row), settings)),
  pick: ({ weights, uniform }) => pick(Float32Array.from(weights), uniform),
};
const requests = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(requests.map((request) => operations[request.op](request))));
