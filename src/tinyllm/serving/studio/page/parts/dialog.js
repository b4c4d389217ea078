/** A modal dialog: the browser's own, which holds the focus and closes on Escape. */
import { html, useEffect, useId, useRef } from "./html.js";
import { t } from "./language.js";

/**
 * @param {{ title: string, onClose: () => void, children?: import("./html.js").Children }} props
 */
export function Dialog({ title, onClose, children }) {
    const id = useId();
    const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
    useEffect(() => {
        const before = document.activeElement;
        element.current?.showModal();
        element.current?.querySelector("input")?.focus();
        return () => {
            if (before instanceof HTMLElement) before.focus();
        };
    }, []);
    return html`<dialog class="dialog" ref=${element} aria-labelledby=${id} onClose=${onClose}>
        <header class="dialog-head">
            <h2 id=${id}>${title}</h2>
            <button type="button" class="button button-quiet" aria-label=${t("close")} onClick=${() => element.current?.close()}>✕</button>
        </header>
        ${children}
    </dialog>`;
}
