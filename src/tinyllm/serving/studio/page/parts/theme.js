/** Light and dark: the system's choice, or the user's. */
import { createStore, keepSetting, readSetting, useStore } from "./store.js";

/** @typedef {"light" | "dark"} Theme */

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
const theme = createStore(currentTheme());

darkSystem.addEventListener("change", () => theme.set(currentTheme()));
applyChoice(readSetting("theme", ""));

/** @returns {Theme} */
function currentTheme() {
    const kept = readSetting("theme", "");
    if (kept === "light" || kept === "dark") return kept;
    return darkSystem.matches ? "dark" : "light";
}

/** @param {string} choice */
function applyChoice(choice) {
    if (choice === "light" || choice === "dark") document.documentElement.dataset["theme"] = choice;
    else delete document.documentElement.dataset["theme"];
}

/** The theme that is seen. */
export function useTheme() {
    return useStore(theme);
}

export function switchTheme() {
    const next = theme.get() === "dark" ? "light" : "dark";
    keepSetting("theme", next);
    applyChoice(next);
    theme.set(next);
}

/**
 * The colours of custom properties such as `--ink` as the canvas understands them.
 * @param {string[]} names
 * @returns {Record<string, string>}
 */
export function readColors(names) {
    const probe = document.createElement("span");
    document.body.append(probe);
    /** @type {Record<string, string>} */
    const colors = {};
    for (const name of names) {
        probe.style.color = `var(${name})`;
        colors[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    return colors;
}
