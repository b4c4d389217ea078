/** What one or two tokenizers make of a text: pieces, ids and bytes, and characters per token. */
import { post } from "../parts/api.js";
import { Select, TextArea } from "../parts/controls.js";
import { html, useEffect, useState } from "../parts/html.js";
import { formatFixed, formatNumber, listOf, t } from "../parts/language.js";
import { useLoaded } from "../parts/loading.js";
import { changeState } from "../parts/route.js";
import { Empty, ErrorLine, Loading } from "../parts/states.js";
import { Table } from "../parts/tables.js";
import { hexBytes, spacedBytes, tokenName, TokenText } from "../parts/tokens.js";

/** @typedef {import("../parts/types.js").Library} Library */
/** @typedef {import("../parts/types.js").Pieces} Pieces */
/** @typedef {{ key: string, label: string, source: { tokenizer: string } | { model: string } }} Choice */

const MOST_CHARACTERS = 20000;
/** Links stay short enough for every browser and mail program. */
const MOST_LINKED = 2000;
const MOST_ROWS = 200;

/**
 * @param {{ library: Library, params: URLSearchParams }} props
 */
export function TokenizerPart({ library, params }) {
    const choices = tokenizerChoices(library);
    const first = choices.find(({ key }) => key === params.get("a")) ?? choices[0];
    const second = choices.find(({ key }) => key === params.get("b"));
    const linked = params.get("text");
    const [typed, setTyped] = useState(/** @type {string | null} */ (null));
    useEffect(() => {
        if (linked !== null && linked !== typed) setTyped(null); // another link was opened
    }, [linked]);
    const text = typed ?? linked ?? t("tokenizer.example");
    const keepText = (/** @type {string} */ next) => {
        setTyped(next);
        changeState({ text: next.length <= MOST_LINKED ? next : null });
    };
    if (first === undefined) return html`<${NoTokenizer} />`;
    const options = choices.map(({ key, label }) => ({ value: key, label }));
    return html`<div class="stack stack-wide">
        <div class="tools">
            <${Select} label=${t("tokenizer.first")} value=${first.key} options=${options}
                onChange=${(/** @type {string} */ value) => changeState({ a: value })} />
            <${Select} label=${t("tokenizer.second")} value=${second?.key ?? ""}
                options=${[{ value: "", label: t("tokenizer.no_second") }, ...options]}
                onChange=${(/** @type {string} */ value) => changeState({ b: value })} />
        </div>
        <${TextArea} label=${t("tokenizer.text")} value=${text} maxLength=${MOST_CHARACTERS} onChange=${keepText} />
        ${text.length > MOST_LINKED && html`<p class="hint">${t("tokenizer.not_linked", { count: MOST_LINKED })}</p>`}
        <div class=${second ? "side-by-side" : "stack"}>
            <${TokenizedText} choice=${first} text=${text} />
            ${second && html`<${TokenizedText} choice=${second} text=${text} />`}
        </div>
    </div>`;
}

function NoTokenizer() {
    return html`<${Empty} title=${t("tokenizer.none")}>
        <p>${t("tokenizer.none_text")}</p><pre><code>tinyllm tokenizer train stories.txt -o tokenizer</code></pre>
    <//>`;
}

/**
 * Tokenizers of their own, and those of models.
 * @param {Library} library
 * @returns {Choice[]}
 */
function tokenizerChoices({ tokenizers, models }) {
    return [
        ...tokenizers.map(({ id, name, vocab_size }) => ({
            key: `tokenizer:${id}`, label: t("tokenizer.choice", { name, size: vocab_size }), source: { tokenizer: id },
        })),
        ...models.map(({ id, name, vocab_size }) => ({
            key: `model:${id}`, label: t("tokenizer.choice", { name, size: vocab_size }), source: { model: id },
        })),
    ];
}

/**
 * @param {{ choice: Choice, text: string }} props
 */
function TokenizedText({ choice, text }) {
    const { data, problem } = useLoaded(
        (signal) => /** @type {Promise<Pieces>} */ (post("pieces", { ...choice.source, text }, signal)),
        [choice.key, text],
    );
    if (problem !== null) return html`<${ErrorLine} problem=${problem} />`;
    if (data === null) return html`<${Loading} />`;
    const { tokens, characters_per_token, bytes_per_token } = data;
    const facts = [
        [t("tokenizer.num_tokens"), formatNumber(tokens.length)],
        [t("tokenizer.characters"), rate(characters_per_token)],
        [t("tokenizer.bytes"), rate(bytes_per_token)],
        [t("data.vocabulary"), formatNumber(data.vocab_size)],
    ];
    return html`<section class="card stack" aria-label=${choice.label}>
        <h2>${choice.label}</h2>
        <dl class="facts">${facts.map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>
        <${TokenText} tokens=${tokens} label=${listOf([t("tokenizer.pieces"), choice.label])} />
        <${PieceTable} tokens=${tokens} label=${choice.label} />
    </section>`;
}

/** @param {number | null} value */
function rate(value) {
    return value === null ? "\u2013" : formatFixed(value, 2);
}

/**
 * @param {{ tokens: import("../parts/types.js").Token[], label: string }} props
 */
function PieceTable({ tokens, label }) {
    if (tokens.length === 0) return null;
    return html`<${Table}
        caption=${listOf([t("tokenizer.pieces"), label])}
        columns=${[
            { name: "place", label: t("tokenizer.place"), number: true },
            { name: "piece", label: t("tokenizer.piece") },
            { name: "id", label: t("tokenizer.id"), number: true },
            { name: "bytes", label: t("tokenizer.byte_values") },
        ]}
        rows=${tokens.slice(0, MOST_ROWS).map((token, place) => ({
            key: String(place),
            cells: {
                place: formatNumber(place + 1),
                piece: html`<span class=${`token tint-${place % 5}`}>${tokenName(token)}</span>`,
                id: token.id,
                bytes: html`<code>${spacedBytes(token.bytes ?? hexBytes(token.piece))}</code>`,
            },
        }))}
    />
    ${tokens.length > MOST_ROWS && html`<p class="hint">${t("tokenizer.first_pieces", { count: MOST_ROWS })}</p>`}`;
}
