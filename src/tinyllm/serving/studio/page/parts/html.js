/**
 * The one place that binds the libraries: `html` writes elements as tagged templates, the hooks are Preact's.
 * Data goes into templates as values, never as markup.
 */
import { createRef, Fragment, h, render } from "../vendor/preact/preact.js";
import { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact/hooks.js";
import htm from "../vendor/htm/htm.js";

/** @typedef {import("preact").VNode<any>} Element An element of the page. */
/** @typedef {import("preact").ComponentChildren} Children */

/** @type {(strings: TemplateStringsArray, ...values: any[]) => Element} */
export const html = /** @type {any} */ (htm.bind(h));

export {
    createRef,
    Fragment,
    h,
    render,
    useCallback,
    useEffect,
    useId,
    useLayoutEffect,
    useMemo,
    useRef,
    useState,
};
