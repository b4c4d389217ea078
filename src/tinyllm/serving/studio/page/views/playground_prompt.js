/** The prompt, the models that continue it, and the buttons that write, stop and copy the link. */
import { Button, CopyButton, Segmented, Select } from "../parts/controls.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { t } from "../parts/language.js";
import { FIRST_PROMPT, MOST_LINKED, MOST_SAMPLES, settingChanges } from "../parts/play_link.js";
import { changeState } from "../parts/route.js";
import { useStore } from "../parts/store.js";
import { isWriting, linkProblem, stopAll, write, written } from "./playground_store.js";

/** @typedef {import("../parts/play_types.js").Settings} Settings */

const MOST_CHARACTERS = 20000;
const REST_MS = 250;

/**
 * The prompt of a link, that of the texts if it is too long for a link, or a first one.
 * @param {URLSearchParams} params
 */
export function promptOf(params) {
    const { prompt, samples } = written.get();
    if (params.has("blank")) return "";
    if (!params.has("prompt") && samples.length > 0 && prompt.length > MOST_LINKED) return prompt;
    return params.get("prompt") ?? (params.has("bare") ? "" : (params.get("of") ?? FIRST_PROMPT));
}

/**
 * @param {{ library: import("../parts/types.js").Library, models: string[], params: URLSearchParams, settings: Settings }} props
 */
export function PromptForm({ library, models, params, settings }) {
    const linked = promptOf(params);
    const [text, setText] = useState(linked);
    const timer = useRef(0);
    const problem = useStore(linkProblem);
    useStore(written);
    useEffect(() => setText(linked), [linked]);
    useEffect(() => () => clearTimeout(timer.current), []);
    const writing = isWriting();
    /** @param {string} next */
    const type = (next) => {
        setText(next);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => keepPrompt(next), REST_MS);
    };
    /** @param {Settings} chosen */
    const start = (chosen) => {
        clearTimeout(timer.current);
        changeState(settingChanges(chosen));
        write(text, models, chosen);
    };
    /** @param {KeyboardEvent} event */
    const press = (event) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        start(settings);
    };
    return html`<section class="card stack" aria-label=${t("play.prompt")}>
        <label class="field field-wide">
            <span class="field-label">${t("play.prompt")}<span class="hint">${t("play.keys")}</span></span>
            <textarea rows="2" class="play-prompt" value=${text} maxLength=${MOST_CHARACTERS} spellcheck=${false} onKeyDown=${press}
                onInput=${(/** @type {any} */ event) => type(event.currentTarget.value)}></textarea>
        </label>
        <div class="play-bar">
            <${ModelChoice} library=${library} models=${models} />
            <${Segmented}
                label=${t("play.samples")}
                value=${String(models.length)}
                options=${["1", "2", "3", "4"].map((value) => ({ value, label: value }))}
                onChange=${(/** @type {string} */ count) => changeState({ model: resized(models, Number(count)) })}
            />
            <div class="play-actions">
                <${Button} kind="main" onClick=${() => (writing ? stopAll() : start(settings))}>${writing ? t("play.stop") : t("play.write")}<//>
                <${Button} disabled=${writing} onClick=${() => start({ ...settings, seed: newSeed() })}>${t("play.another")}<//>
                <${LinkButton} />
            </div>
        </div>
        ${problem && html`<p class="hint" role="status">${problem}</p>`}
    </section>`;
}

/** @param {string} prompt */
function keepPrompt(prompt) {
    if (prompt.length <= MOST_LINKED) changeState({ prompt, blank: prompt === "" ? "1" : null });
}

/**
 * The models for another number of samples: a new one continues with the last model.
 * @param {string[]} models
 * @param {number} count
 */
function resized(models, count) {
    return Array.from({ length: Math.min(MOST_SAMPLES, count) }, (_, place) => models[place] ?? models.at(-1) ?? "");
}

/** A seed that is short enough to read out. */
function newSeed() {
    return 1 + Math.floor(Math.random() * 99999);
}

/** Copies the link as it is when the button is pressed. */
function LinkButton() {
    return html`<${CopyButton} text=${() => location.href} label=${t("play.copy_link")} />`;
}

/**
 * @param {{ library: import("../parts/types.js").Library, models: string[] }} props
 */
function ModelChoice({ library, models }) {
    return models.map((model, place) => html`<${Select}
        key=${place}
        label=${models.length > 1 ? t("play.model_of", { number: place + 1 }) : t("play.model")}
        value=${model}
        options=${modelOptions(library, model)}
        onChange=${(/** @type {string} */ next) => changeState({ model: models.map((each, at) => (at === place ? next : each)) })}
    />`);
}

/**
 * The models of the library, and the one of the link if it is none of them.
 * @param {import("../parts/types.js").Library} library
 * @param {string} model
 */
export function modelOptions({ models }, model) {
    const known = models.map(({ id, name }) => ({
        value: id,
        label: models.filter((each) => each.name === name).length > 1 ? id : name,
    }));
    return model === "" || models.some(({ id }) => id === model) ? known : [...known, { value: model, label: model }];
}
