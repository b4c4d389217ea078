/** The page's texts in English and Chinese, and numbers, durations and times as the language writes them. */
import en from "../texts/en.js";
import zh from "../texts/zh.js";
import { createStore, keepSetting, readSetting, useStore } from "./store.js";

/** @typedef {keyof typeof en} TextKey */
/** @typedef {"en" | "zh"} Language */

/** @type {Record<Language, Record<TextKey, string>>} */
const texts = { en, zh };
const language = createStore(firstLanguage());
/** @type {Map<string, Intl.NumberFormat>} */
const formats = new Map();

document.documentElement.lang = language.get();

/** @returns {Language} */
function firstLanguage() {
    const kept = readSetting("language", navigator.language);
    return kept.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** The language of the page. */
export function useLanguage() {
    return useStore(language);
}

/** @param {Language} next */
export function setLanguage(next) {
    keepSetting("language", next);
    document.documentElement.lang = next;
    language.set(next);
}

export function switchLanguage() {
    setLanguage(language.get() === "en" ? "zh" : "en");
}

/**
 * The text of a key, with `{name}` replaced by values. Numbers are written as the language does.
 * @param {TextKey} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
    return texts[language.get()][key].replace(/\{(\w+)\}/g, (placeholder, name) => {
        const value = values[name];
        if (value === undefined) return placeholder;
        return typeof value === "number" ? formatNumber(value) : value;
    });
}

/** Texts as a list, with the comma of the language. Empty ones are left out. @param {(string | false)[]} items */
export function listOf(items) {
    return items.filter(Boolean).join(t("list.comma"));
}

/** Sentences after one another, with the full stop of the language. @param {string[]} sentences */
export function sentencesOf(sentences) {
    return sentences.filter((each) => each !== "").join(t("list.stop"));
}

/**
 * @param {string} name
 * @param {Intl.NumberFormatOptions} options
 */
function numberFormat(name, options) {
    const key = `${language.get()} ${name}`;
    const found = formats.get(key) ?? new Intl.NumberFormat(language.get(), options);
    formats.set(key, found);
    return found;
}

/**
 * A whole number in full, another with at most 4 significant digits.
 * @param {number} value
 */
export function formatNumber(value) {
    if (Number.isInteger(value)) return numberFormat("whole", { maximumFractionDigits: 0 }).format(value);
    if (Math.abs(value) < 0.001) return value.toExponential(2);
    return numberFormat("short", { maximumSignificantDigits: 4 }).format(value);
}

/**
 * With a fixed number of digits after the point, so that columns align.
 * @param {number} value
 * @param {number} digits
 */
export function formatFixed(value, digits) {
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    return numberFormat(`fixed ${digits}`, options).format(value);
}

/**
 * Large numbers in short: 12.3K, 1.5M; in Chinese by ten thousands.
 * @param {number} value
 */
export function formatCompact(value) {
    return numberFormat("compact", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
}

/**
 * A number of an axis whose lines are `increment` apart: short, but with the digits that tell neighbours apart.
 * @param {number} value
 * @param {number} [increment]
 */
export function formatTick(value, increment = Math.abs(value)) {
    const size = Math.abs(value);
    if (size >= 10000 && increment >= 10 ** (Math.floor(Math.log10(size)) - 2)) return formatCompact(value);
    if (size > 0 && size < 0.001 && increment >= size) return value.toExponential();
    const digits = increment > 0 ? Math.min(12, Math.max(0, Math.ceil(-Math.log10(increment) - 1e-9) + 1)) : 0;
    return numberFormat(`tick ${digits}`, { maximumFractionDigits: digits }).format(value);
}

/**
 * @param {number} share between 0 and 1
 */
export function formatPercent(share) {
    const digits = share < 0.1 ? 1 : 0;
    return numberFormat(`percent ${digits}`, { style: "percent", maximumFractionDigits: digits }).format(share);
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** @param {number} bytes */
export function formatBytes(bytes) {
    const power = byteUnit(bytes);
    const value = bytes / 1024 ** power;
    return `${numberFormat("bytes", { maximumSignificantDigits: 3 }).format(value)} ${BYTE_UNITS[power]}`;
}

/**
 * A number of bytes of an axis whose lines are `increment` apart, a power of 2. All of them have one unit, in which
 * they are whole or have a quarter.
 * @param {number} bytes
 * @param {number} [increment]
 */
export function formatBytesTick(bytes, increment) {
    if (bytes === 0) return "0";
    if (increment === undefined) return formatBytes(bytes);
    const power = byteUnit(4 * increment);
    return `${numberFormat("byte tick", { maximumFractionDigits: 2 }).format(bytes / 1024 ** power)} ${BYTE_UNITS[power]}`;
}

/** The power of 1024 of the largest unit that is not above some bytes. @param {number} bytes */
function byteUnit(bytes) {
    return bytes > 0 ? Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log2(bytes) / 10)) : 0;
}

/**
 * A duration in its two largest units.
 * @param {number} seconds
 */
export function formatDuration(seconds) {
    const whole = Math.round(seconds);
    const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600), Math.floor(whole / 60)];
    if (days > 0) return t("time.days_hours", { days, hours: hours % 24 });
    if (hours > 0) return t("time.hours_minutes", { hours, minutes: minutes % 60 });
    if (minutes > 0) return t("time.minutes_seconds", { minutes, seconds: whole % 60 });
    return t("time.seconds", { seconds: whole });
}

/**
 * The date and time of a Unix time in seconds.
 * @param {number} seconds
 */
export function formatTime(seconds) {
    const options = /** @type {const} */ ({ dateStyle: "medium", timeStyle: "short" });
    return new Intl.DateTimeFormat(language.get(), options).format(new Date(seconds * 1000));
}
