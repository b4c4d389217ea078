/** Documents of a split with their tokens; search, and a jump to a number. */
import { get } from "../parts/api.js";
import { Button, NumberField, TextField } from "../parts/controls.js";
import { html, useEffect, useState } from "../parts/html.js";
import { formatNumber, sentencesOf, t } from "../parts/language.js";
import { useLoaded } from "../parts/loading.js";
import { changeState, numberParam } from "../parts/route.js";
import { ErrorLine, Loading } from "../parts/states.js";
import { TokenText } from "../parts/tokens.js";

/** @typedef {import("../parts/types.js").Document} Document */
/** @typedef {import("../parts/types.js").Match} Match */
/** @typedef {{ documents: Document[], num_documents: number }} Answer */
/** @typedef {{ matches: Match[], next: number | null }} Found */

const PAGE = 10;
/** Characters that the server searches for. */
const LONGEST_SEARCH = 200;

/**
 * @param {{ id: string, split: string, count: number | undefined, params: URLSearchParams }} props
 */
export function DocumentsPart({ id, split, count, params }) {
    const from = Math.floor(numberParam(params, "from", 0, 0, Number.MAX_SAFE_INTEGER));
    const text = params.get("q") ?? "";
    return html`<div class="stack">
        <div class="tools" role="search">
            <${TextField}
                type="search"
                label=${t("documents.search")}
                value=${text}
                maxLength=${LONGEST_SEARCH}
                onChange=${(/** @type {string} */ value) => changeState({ q: value })}
            />
            <${NumberField}
                label=${t("documents.jump")}
                value=${from + 1}
                least=${1}
                most=${count ?? Number.MAX_SAFE_INTEGER}
                waitMs=${600}
                onChange=${(/** @type {number} */ value) => changeState({ from: String(value - 1), q: null })}
            />
        </div>
        ${text !== ""
            ? html`<${SearchResults} key=${text} id=${id} split=${split} text=${text} />`
            : html`<${DocumentPage} id=${id} split=${split} from=${from} />`}
    </div>`;
}

/**
 * @param {{ id: string, split: string, from: number }} props
 */
function DocumentPage({ id, split, from }) {
    const { data, problem } = useLoaded(
        (signal) => /** @type {Promise<Answer>} */ (get("documents", { id, split, from, limit: PAGE }, signal)),
        [id, split, from],
    );
    if (problem !== null) return html`<${ErrorLine} problem=${problem} />`;
    if (data === null) return html`<${Loading} />`;
    const { documents, num_documents: count } = data;
    if (documents.length === 0) return html`<${NoDocument} from=${from} count=${count} />`;
    const first = documents[0]?.index ?? 0;
    return html`
        <${Pager} first=${first} shown=${documents.length} count=${count} />
        ${documents.map((document, place) => html`<${OneDocument} key=${document.index} document=${document} hint=${place === 0} />`)}
        ${documents.length > 3 && html`<${Pager} first=${first} shown=${documents.length} count=${count} />`}
    `;
}

/**
 * @param {{ from: number, count: number }} props
 */
function NoDocument({ from, count }) {
    const last = Math.max(0, count - PAGE);
    return html`<p class="hint">${t("documents.none", { index: from + 1, count })}</p>
        ${count > 0 && html`<div><${Button} onClick=${() => changeState({ from: String(last) })}>${t("documents.last")}<//></div>`}`;
}

/**
 * @param {{ first: number, shown: number, count: number }} props
 */
function Pager({ first, shown, count }) {
    /** @param {number} from */
    const go = (from) => changeState({ from: from > 0 ? String(from) : null }, { push: true });
    return html`<div class="pager">
        <${Button} onClick=${() => go(Math.max(0, first - PAGE))} disabled=${first === 0}>${t("documents.before")}<//>
        <span>${t("documents.range", { first: first + 1, last: first + shown, count })}</span>
        <${Button} onClick=${() => go(first + PAGE)} disabled=${first + shown >= count}>${t("documents.after")}<//>
    </div>`;
}

/**
 * @param {{ document: Document, hint: boolean }} props
 */
function OneDocument({ document: { index, num_tokens, tokens }, hint }) {
    const rest = sentencesOf([t("documents.length", { count: num_tokens }), hint ? t("tokens.hint") : ""]);
    return html`<article class="card document">
        <header>
            <h2>${t("documents.number", { index: index + 1 })}</h2>
        </header>
        <${TokenText} tokens=${tokens} label=${t("documents.number", { index: index + 1 })} rest=${rest} />
        ${tokens.length < num_tokens && html`<p class="hint">${t("documents.cut", { count: tokens.length })}</p>`}
    </article>`;
}

/**
 * Matches, 20 an answer; the server says where to go on.
 * @param {{ id: string, split: string, text: string }} props
 */
function SearchResults({ id, split, text }) {
    const [from, setFrom] = useState(0);
    const [matches, setMatches] = useState(/** @type {Match[]} */ ([]));
    const { data, problem, loading } = useLoaded(
        (signal) => /** @type {Promise<Found>} */ (get("search", { id, split, text, from }, signal)),
        [id, split, text, from],
    );
    useEffect(() => {
        if (data !== null) setMatches((before) => [...before, ...data.matches]);
    }, [data]);
    const next = data?.next ?? null;
    return html`<div class="stack" aria-busy=${String(loading)}>
        <${ErrorLine} problem=${problem} />
        <p class="hint" role="status">${searchState(matches.length, data, loading)}</p>
        <ul class="matches">${matches.map((match, place) => html`<li key=${place}>
            <button
                type="button"
                class="match"
                aria-label=${`${t("documents.open", { index: match.index + 1 })}: ${match.before}${match.match}${match.after}`}
                onClick=${() => changeState({ from: String(match.index), q: null }, { push: true })}
            >
                <span class="match-index">${formatNumber(match.index + 1)}</span>
                <span class="prose">${match.before}<mark>${match.match}</mark>${match.after}</span>
            </button>
        </li>`)}</ul>
        ${next !== null && !loading && html`<div><${Button} onClick=${() => setFrom(next)}>${t("documents.go_on")}<//></div>`}
        ${loading && html`<${Loading} />`}
    </div>`;
}

/**
 * @param {number} count
 * @param {Found | null} data
 * @param {boolean} loading
 */
function searchState(count, data, loading) {
    const isWhole = data !== null && !loading && data.next === null;
    if (count > 0) return isWhole ? t("documents.matches", { count }) : t("documents.first_matches", { count });
    if (data === null || loading) return "";
    return data.next === null ? t("documents.no_match") : t("documents.searched", { index: data.next });
}
