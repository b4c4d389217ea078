/** A value that several parts of the page show, and the hook that redraws a part when the value changes. */
import { useEffect, useState } from "./html.js";

/**
 * @template T
 * @typedef {object} Store
 * @property {() => T} get
 * @property {(value: T) => void} set Tells all listeners if the value differs.
 * @property {(listener: () => void) => () => void} subscribe Returns the function that ends the subscription.
 */

/**
 * @template T
 * @param {T} value
 * @returns {Store<T>}
 */
export function createStore(value) {
    /** @type {Set<() => void>} */
    const listeners = new Set();
    return {
        get: () => value,
        set(next) {
            if (Object.is(next, value)) return;
            value = next;
            for (const listener of [...listeners]) listener();
        },
        subscribe(listener) {
            listeners.add(listener);
            return () => listeners.delete(listener);
        },
    };
}

/**
 * The value of a store; the component is drawn again when it changes.
 * @template T
 * @param {Store<T>} store
 * @returns {T}
 */
export function useStore(store) {
    const [, redraw] = useState({});
    const value = store.get();
    useEffect(() => {
        const update = () => redraw({});
        if (!Object.is(store.get(), value)) update(); // it changed between drawing and this subscription
        return store.subscribe(update);
    }, [store]);
    return value;
}

/**
 * Reads a setting that this browser keeps; `fallback` if there is none or storage is forbidden.
 * @param {string} name
 * @param {string} fallback
 */
export function readSetting(name, fallback) {
    try {
        return localStorage.getItem(`tinyllm.${name}`) ?? fallback;
    } catch {
        return fallback; // storage is forbidden: the setting lasts as long as the page
    }
}

/**
 * Keeps a setting in this browser, unless storage is forbidden.
 * @param {string} name
 * @param {string} value
 */
export function keepSetting(name, value) {
    try {
        localStorage.setItem(`tinyllm.${name}`, value);
    } catch {
        // storage is forbidden: the setting lasts as long as the page
    }
}
