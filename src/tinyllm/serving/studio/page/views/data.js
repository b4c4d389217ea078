/** The view of data: documents of shards, statistics, and what tokenizers make of a text. */
import { Select } from "../parts/controls.js";
import { html } from "../parts/html.js";
import { formatCompact, formatFixed, formatNumber, t } from "../parts/language.js";
import { get } from "../parts/api.js";
import { useLoaded } from "../parts/loading.js";
import { changeState, wordParam } from "../parts/route.js";
import { Empty, ErrorLine } from "../parts/states.js";
import { Tabs } from "../parts/tabs.js";
import { DocumentsPart } from "./data_documents.js";
import { StatisticsPart } from "./data_statistics.js";
import { TokenizerPart } from "./data_tokenizer.js";

/** @typedef {import("../parts/types.js").Shards} Shards */
/** @typedef {import("../parts/types.js").ShardsSummary} ShardsSummary */

const PARTS = /** @type {const} */ (["documents", "statistics", "tokenizer"]);

/** @param {import("../main.js").ViewProps} props */
export function DataView({ library, params, look }) {
    const part = wordParam(params, "part", PARTS);
    const names = { documents: t("data.documents"), statistics: t("data.statistics"), tokenizer: t("data.tokenizer") };
    return html`<${Tabs}
        label=${t("data.parts")}
        value=${part}
        tabs=${PARTS.map((value) => ({ value, label: names[value] }))}
        onChange=${(/** @type {string} */ value) => changeState({ part: value === "documents" ? null : value }, { push: true })}
    >
        ${part === "tokenizer"
            ? html`<${TokenizerPart} library=${library} params=${params} />`
            : html`<${ShardsPart} library=${library} params=${params} look=${look} part=${part} />`}
    <//>`;
}

/**
 * @param {import("../main.js").ViewProps & { part: string }} props
 */
function ShardsPart({ library, params, look, part }) {
    const chosen = params.get("shards") ?? library.first_shards;
    const summary = library.shards.find((each) => each.id === chosen) ?? library.shards[0];
    const id = summary?.id ?? "";
    const { data, problem } = useLoaded(
        summary ? (signal) => /** @type {Promise<Shards>} */ (get("shards", { id }, signal)) : null,
        [id],
    );
    if (summary === undefined) return html`<${NoShards} />`;
    const split = summary.splits.find((name) => name === params.get("split")) ?? summary.splits[0] ?? "";
    return html`<div class="stack stack-wide">
        <div class="tools">
            <${Select}
                label=${t("data.shards")}
                value=${id}
                options=${library.shards.map((each) => ({ value: each.id, label: each.name }))}
                onChange=${(/** @type {string} */ value) => changeState({ shards: value, split: null, from: null, q: null })}
            />
            <${Select}
                label=${t("data.split")}
                value=${split}
                options=${summary.splits.map((value) => ({ value, label: value }))}
                onChange=${(/** @type {string} */ value) => changeState({ split: value, from: null, q: null })}
            />
            <${SplitFacts} counts=${data?.splits[split]} vocabulary=${summary.vocab_size} />
        </div>
        <${ErrorLine} problem=${problem} />
        ${part === "statistics"
            ? html`<${StatisticsPart} key=${`${id} ${split}`} id=${id} split=${split} look=${look} />`
            : html`<${DocumentsPart} key=${`${id} ${split}`} id=${id} split=${split} count=${data?.splits[split]?.num_documents} params=${params} />`}
    </div>`;
}

function NoShards() {
    return html`<${Empty} title=${t("data.none")}>
        <p>${t("data.none_text")}</p><pre><code>tinyllm prepare stories.txt --tokenizer tokenizer -o shards</code></pre>
    <//>`;
}

/**
 * @param {{ counts: { num_documents: number, num_tokens: number } | undefined, vocabulary: number }} props
 */
function SplitFacts({ counts, vocabulary }) {
    if (counts === undefined) return null;
    const { num_documents, num_tokens } = counts;
    const facts = [
        [t("data.count_documents"), formatNumber(num_documents)],
        [t("data.count_tokens"), formatCompact(num_tokens)],
        [t("data.mean_length"), num_documents > 0 ? formatFixed(num_tokens / num_documents, 1) : "\u2013"],
        [t("data.vocabulary"), formatNumber(vocabulary)],
    ];
    return html`<dl class="facts">${facts.map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
}
