/** Buttons, choices, sliders and fields. Each has a visible label or an `aria-label`. */
import { html, useId, useEffect, useRef, useState } from "./html.js";
import { t } from "./language.js";

/** @typedef {import("./html.js").Children} Children */

/**
 * @param {{ onClick: () => void, children?: Children, kind?: "plain" | "main" | "quiet", label?: string,
 *     disabled?: boolean, pressed?: boolean }} props
 * `label` is the name of a button that shows only a sign.
 */
export function Button({ onClick, children, kind = "plain", label, disabled = false, pressed }) {
    return html`<button
        type="button"
        class=${`button button-${kind}`}
        onClick=${onClick}
        disabled=${disabled}
        aria-label=${label}
        title=${label}
        aria-pressed=${pressed === undefined ? undefined : String(pressed)}
    >${children}</button>`;
}

/**
 * @param {{ label: string, checked: boolean, onChange: (checked: boolean) => void }} props
 */
export function Toggle({ label, checked, onChange }) {
    return html`<label class="toggle">
        <input
            type="checkbox"
            checked=${checked}
            onChange=${(/** @type {any} */ event) => onChange(event.currentTarget.checked)}
        />
        <span>${label}</span>
    </label>`;
}

/**
 * One choice of a few, all of them seen.
 * @template {string} T
 * @param {{ label: string, value: T, options: readonly { value: T, label: string }[], onChange: (value: T) => void,
 *     hideLabel?: boolean }} props
 */
export function Segmented({ label, value, options, onChange, hideLabel = false }) {
    const name = useId();
    return html`<fieldset class="segmented">
        <legend class=${hideLabel ? "visually-hidden" : ""}>${label}</legend>
        <div class="segments">
            ${options.map((option) => html`<label key=${option.value} class="segment">
                <input
                    type="radio"
                    name=${name}
                    value=${option.value}
                    checked=${option.value === value}
                    onChange=${() => onChange(option.value)}
                />
                <span>${option.label}</span>
            </label>`)}
        </div>
    </fieldset>`;
}

/**
 * @param {{ label: string, value: string, options: readonly { value: string, label: string }[],
 *     onChange: (value: string) => void }} props
 */
export function Select({ label, value, options, onChange }) {
    return html`<label class="field">
        <span class="field-label">${label}</span>
        <select value=${value} onChange=${(/** @type {any} */ event) => onChange(event.currentTarget.value)}>
            ${options.map((option) => html`<option
                key=${option.value}
                value=${option.value}
                selected=${option.value === value}
            >${option.label}</option>`)}
        </select>
    </label>`;
}

/**
 * A slider with its value beside it. `text` is the value as it is read.
 * @param {{ label: string, value: number, min: number, max: number, step: number, text?: string,
 *     onInput: (value: number) => void }} props
 */
export function Slider({ label, value, min, max, step, text, onInput }) {
    const shown = text ?? String(value);
    return html`<label class="field slider">
        <span class="field-label">${label}<span class="field-value" aria-hidden="true">${shown}</span></span>
        <input
            type="range"
            min=${min}
            max=${max}
            step=${step}
            value=${value}
            aria-valuetext=${shown}
            onInput=${(/** @type {any} */ event) => onInput(Number(event.currentTarget.value))}
        />
    </label>`;
}

/**
 * A line of text that is handed on while it is typed, after it has rested for `waitMs`, or on Enter.
 * @param {{ label: string, value: string, onChange: (value: string) => void, placeholder?: string, waitMs?: number,
 *     type?: string, inputMode?: string, hideLabel?: boolean, maxLength?: number, problem?: string }} props
 * `problem` says why what was typed cannot be used.
 */
export function TextField({ label, value, onChange, placeholder, waitMs = 300, type = "text", inputMode, hideLabel, maxLength, problem = "" }) {
    const line = useId();
    const [text, setText] = useState(value);
    const timer = useRef(0);
    useEffect(() => setText(value), [value]);
    useEffect(() => () => clearTimeout(timer.current), []);
    /** @param {string} next @param {number} wait */
    const handOn = (next, wait) => {
        setText(next);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => onChange(next), wait);
    };
    return html`<label class="field">
        <span class=${hideLabel ? "visually-hidden" : "field-label"}>${label}</span>
        <input
            type=${type}
            inputMode=${inputMode}
            value=${text}
            placeholder=${placeholder}
            maxLength=${maxLength}
            aria-invalid=${problem === "" ? undefined : "true"}
            aria-describedby=${problem === "" ? undefined : line}
            spellcheck=${false}
            autocomplete="off"
            onInput=${(/** @type {any} */ event) => handOn(event.currentTarget.value, waitMs)}
            onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && handOn(text, 0)}
        />
    </label>
    ${problem !== "" && html`<p id=${line} class="field-problem" role="alert">${problem}</p>`}`; // a label would be read with it
}

/**
 * A whole number between two limits. Anything else is told beside the field, and is not handed on.
 * @param {{ label: string, value: number, least: number, most: number, onChange: (value: number) => void, waitMs?: number }} props
 */
export function NumberField({ label, value, least, most, onChange, waitMs }) {
    const [wrong, setWrong] = useState(false);
    useEffect(() => setWrong(false), [value]);
    /** @param {string} text */
    const read = (text) => {
        const number = /^\d+$/.test(text.trim()) ? Number(text) : NaN;
        const isRight = number >= least && number <= most;
        setWrong(!isRight && text.trim() !== "");
        if (isRight && number !== value) onChange(number);
    };
    return html`<${TextField} label=${label} inputMode="numeric" value=${String(value)} waitMs=${waitMs} onChange=${read}
        problem=${wrong ? t("field.whole_number", { least, most }) : ""} />`;
}

/**
 * A text of several lines; see `TextField`.
 * @param {{ label: string, value: string, onChange: (value: string) => void, rows?: number, waitMs?: number,
 *     maxLength?: number }} props
 */
export function TextArea({ label, value, onChange, rows = 4, waitMs = 300, maxLength }) {
    const [text, setText] = useState(value);
    const timer = useRef(0);
    useEffect(() => setText(value), [value]);
    useEffect(() => () => clearTimeout(timer.current), []);
    return html`<label class="field field-wide">
        <span class="field-label">${label}</span>
        <textarea
            rows=${rows}
            value=${text}
            maxLength=${maxLength}
            spellcheck=${false}
            onInput=${(/** @type {any} */ event) => {
                const next = event.currentTarget.value;
                setText(next);
                clearTimeout(timer.current);
                timer.current = setTimeout(() => onChange(next), waitMs);
            }}
        ></textarea>
    </label>`;
}

/**
 * A button that copies a text, and says so. A function gives the text when the button is pressed.
 * @param {{ text: string | (() => string), label: string }} props
 */
export function CopyButton({ text, label }) {
    const [state, setState] = useState("");
    const copy = async () => {
        try {
            await navigator.clipboard.writeText(typeof text === "string" ? text : text());
            setState(t("copied"));
        } catch {
            setState(t("copy_refused"));
        }
        setTimeout(() => setState(""), 2000);
    };
    return html`<button type="button" class="button button-quiet" onClick=${copy}>
        <span aria-live="polite">${state || label}</span>
    </button>`;
}
