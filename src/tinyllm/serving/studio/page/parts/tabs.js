/** Tabs: the arrow keys go from one to the next, as the WAI-ARIA practice describes. */
import { html, useId, useRef } from "./html.js";

/** @typedef {import("./html.js").Children} Children */

/**
 * @template {string} T
 * @param {{ label: string, value: T, tabs: readonly { value: T, label: string }[], onChange: (value: T) => void,
 *     children?: Children }} props
 */
export function Tabs({ label, value, tabs, onChange, children }) {
    const id = useId();
    const list = useRef(/** @type {HTMLElement | null} */ (null));
    /** @param {KeyboardEvent} event */
    const move = (event) => {
        const place = tabs.findIndex((tab) => tab.value === value);
        const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        const index = (next + tabs.length) % tabs.length;
        const chosen = tabs[index];
        if (chosen === undefined) return;
        onChange(chosen.value);
        /** @type {HTMLElement | undefined} */ (list.current?.children[index])?.focus();
    };
    return html`<div class="tabs">
        <div class="tab-list" role="tablist" aria-label=${label} ref=${list} onKeyDown=${move}>
            ${tabs.map((tab) => html`<button
                key=${tab.value}
                type="button"
                role="tab"
                id=${`${id}-${tab.value}`}
                aria-controls=${`${id}-panel`}
                aria-selected=${String(tab.value === value)}
                tabIndex=${tab.value === value ? 0 : -1}
                onClick=${() => onChange(tab.value)}
            >${tab.label}</button>`)}
        </div>
        <div class="tab-panel" role="tabpanel" id=${`${id}-panel`} aria-labelledby=${`${id}-${value}`}>${children}</div>
    </div>`;
}
