/** Chat with a model that has a template: turns, the field for the next one, and the settings. */
import { ApiError } from "../parts/api.js";
import { Button, CopyButton, Select } from "../parts/controls.js";
import { html, useEffect, useMemo, useRef, useState } from "../parts/html.js";
import { t } from "../parts/language.js";
import { readSettings } from "../parts/play_link.js";
import { changeState } from "../parts/route.js";
import { ShadedText } from "../parts/shaded_text.js";
import { TextError } from "../parts/states.js";
import { useStore } from "../parts/store.js";
import { chat, chatBody, clearChat, isAnswering, isSaid, say, sayAgain, showChat, stopChat, takeBack } from "./playground_chat_store.js";
import { CommandTabs } from "./playground_commands.js";
import { Sliders } from "./playground_settings.js";

/** @typedef {import("../parts/types.js").Model} Model */
/** @typedef {import("./playground_chat_store.js").Turn} Turn */

/**
 * @param {{ models: Model[], first: string | undefined, params: URLSearchParams }} props `first` is the model to begin with
 */
export function ChatPart({ models, first, params }) {
    const { model: spoken, turns } = useStore(chat);
    const settings = useMemo(() => readSettings(params), [params]);
    const [draft, setDraft] = useState("");
    const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
    const edit = (/** @type {string} */ text) => {
        setDraft(text);
        field.current?.focus();
    };
    const named = namedModel(params);
    const model = (models.find(({ id }) => id === named) ?? models.find(({ id }) => id === first) ?? models[0])?.id ?? "";
    useEffect(() => void showChat(params, model), [params, model]);
    const said = turns.filter((turn) => turn.state !== "writing" && isSaid(turn));
    const commands = useMemo(() => (said.length > 0 ? chatCommands(spoken, said) : null), [turns, said.length]);
    return html`<div class="play">
        <div class="stack">
            <section class="card stack" aria-label=${t("play.chat")}>
                <div class="play-bar">
                    <${Select} label=${t("play.model")} value=${model} options=${models.map(({ id, name }) => ({ value: id, label: name }))}
                        onChange=${(/** @type {string} */ next) => changeState({ with: next, say: null })} />
                    <div class="play-actions">
                        <${Button} disabled=${turns.length === 0} onClick=${clearChat}>${t("play.new_chat")}<//>
                        <${CopyButton} text=${() => location.href} label=${t("play.copy_link")} />
                    </div>
                </div>
                ${named !== null && named !== model && html`<p class="hint" role="status">${t("play.no_chat_model", { model: named })}</p>`}
                ${turns.length === 0 && html`<p class="hint">${t("play.chat_hint")}</p>`}
                ${turns.map((turn, place) => html`<${TurnPart} key=${place} turn=${turn} place=${place} onEdit=${edit} />`)}
                <${SayForm} field=${field} text=${draft} onText=${setDraft} onSay=${(/** @type {string} */ text) => say(model, text, settings)} />
            </section>
            ${commands !== null && html`<${CommandTabs} commands=${commands} name=${t("play.answer_of", { number: turns.indexOf(/** @type {Turn} */ (said.at(-1))) + 1 })} />`}
        </div>
        <aside class="card play-settings" aria-label=${t("play.settings")}><${Sliders} settings=${settings} /></aside>
    </div>`;
}

/**
 * The model that an address names for the chat, or else for texts.
 * @param {URLSearchParams} params
 */
function namedModel(params) {
    return params.get("with") ?? params.get("model") ?? params.get("by");
}

/**
 * @param {{ turn: Turn, place: number, onEdit: (text: string) => void }} props
 */
function TurnPart({ turn, place, onEdit }) {
    const writing = turn.state === "writing";
    return html`<div class="turn">
        <p class="turn-user prose"><span class="visually-hidden">${t("play.you")}</span>${turn.user}</p>
        <div class="turn-answer">
            ${turn.tokens.length > 0 && html`<${ShadedText} tokens=${turn.tokens} writing=${writing} label=${t("play.answer_of", { number: place + 1 })} />`}
            ${turn.tokens.length === 0 && isSaid(turn) && html`<p class="hint" role="status">${writing ? t("play.writing") : t("play.no_answer")}</p>`}
            ${!isSaid(turn) && html`<${UnansweredPart} turn=${turn} onEdit=${onEdit} />`}
        </div>
    </div>`;
}

/**
 * Why a turn has no answer, and what can be done: ask again, or change the message.
 * @param {{ turn: Turn, onEdit: (text: string) => void }} props
 */
function UnansweredPart({ turn, onEdit }) {
    const { problem } = turn;
    const tooLong = problem instanceof ApiError && problem.code === "context_length_exceeded";
    const busy = isAnswering();
    const actions = html`<${Button} disabled=${busy} onClick=${() => void sayAgain(turn)}>${t("error.again")}<//>
        <${Button} disabled=${busy} onClick=${() => onEdit(takeBack(turn))}>${t("play.edit")}<//>
        ${tooLong && html`<${Button} onClick=${clearChat}>${t("play.new_chat")}<//>`}`;
    if (problem !== null) {
        return html`<${TextError} problem=${problem} text=${tooLong ? t("play.chat_too_long", problem.values) : undefined}>${actions}<//>
            <p class="hint">${t("play.left_out")}</p>`;
    }
    return html`<p class="hint" role="status">${t("play.unanswered")}</p><div class="button-row">${actions}</div>`;
}

/**
 * @param {{ field: { current: HTMLTextAreaElement | null }, text: string, onText: (text: string) => void,
 *     onSay: (text: string) => void }} props
 */
function SayForm({ field, text, onText, onSay }) {
    const busy = isAnswering();
    const send = () => {
        if (busy) stopChat();
        else if (text.trim() !== "") {
            onSay(text);
            onText("");
        }
    };
    /** @param {KeyboardEvent} event */
    const press = (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing || busy) return;
        event.preventDefault();
        send();
    };
    return html`<div class="say">
        <label class="field field-wide">
            <span class="field-label">${t("play.say")}<span class="hint">${t("play.say_keys")}</span></span>
            <textarea rows="2" class="play-prompt" value=${text} maxLength="20000" ref=${field} onKeyDown=${press}
                onInput=${(/** @type {any} */ event) => onText(event.currentTarget.value)}></textarea>
        </label>
        <${Button} kind="main" onClick=${send}>${busy ? t("play.stop") : t("play.send")}<//>
    </div>`;
}

/** What OpenAI's client has no argument for. */
const EXTRA = ["top_k", "min_p", "repetition_penalty"];

/**
 * The last answer by Python and by curl. JSON of texts and numbers is Python too.
 * @param {string} model
 * @param {Turn[]} turns
 */
export function chatCommands(model, turns) {
    const body = chatBody(model, turns);
    const extra = Object.fromEntries(Object.entries(body).filter(([name]) => EXTRA.includes(name)));
    const plain = Object.entries(body).filter(([name]) => !EXTRA.includes(name));
    const python = [
        "import os",
        "from openai import OpenAI",
        "",
        `client = OpenAI(base_url=${JSON.stringify(`${location.origin}/v1`)}, api_key=os.environ.get("TINYLLM_API_KEY", "none"))`,
        "answer = client.chat.completions.create(",
        ...plain.map(([name, value]) => `    ${name}=${JSON.stringify(value)},`),
        `    extra_body=${JSON.stringify(extra)},`,
        ")",
        "print(answer.choices[0].message.content)",
    ].join("\n");
    const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
    const curl = `curl -s ${location.origin}/v1/chat/completions -H 'Content-Type: application/json' -H "Authorization: Bearer $TINYLLM_API_KEY" -d '${quoted}'`;
    return { python, curl };
}
