/** Asks for the server's key. It is kept in the session storage of this tab. */
import { keyQuestion } from "./api.js";
import { Dialog } from "./dialog.js";
import { html, useState } from "./html.js";
import { t } from "./language.js";
import { useStore } from "./store.js";

export function KeyDialog() {
    const question = useStore(keyQuestion);
    const [key, setKey] = useState("");
    if (question === null) return null;
    /** @param {Event} event */
    const submit = (event) => {
        event.preventDefault();
        setKey("");
        if (key) question.answer(key);
    };
    return html`<${Dialog} title=${t("key.title")} onClose=${() => question.answer(null)}>
        <form class="stack" onSubmit=${submit}>
            <p>${question.refused ? t("key.refused") : t("key.needed")}</p>
            <label class="field field-wide">
                <span class="field-label">${t("key.label")}</span>
                <input
                    type="password"
                    autocomplete="off"
                    value=${key}
                    onInput=${(/** @type {any} */ event) => setKey(event.currentTarget.value)}
                />
            </label>
            <div><button type="submit" class="button button-main">${t("key.send")}</button></div>
        </form>
    <//>`;
}
