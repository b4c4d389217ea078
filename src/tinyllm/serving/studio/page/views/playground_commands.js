/** The same text from a shell, from Python and by curl, each one click away. */
import { CopyButton } from "../parts/controls.js";
import { html, useState } from "../parts/html.js";
import { t } from "../parts/language.js";
import { Tabs } from "../parts/tabs.js";

/** @typedef {import("../parts/play_types.js").Commands} Commands */

const KINDS = /** @type {const} */ (["shell", "python", "curl"]);
const NAMES = { python: "Python", curl: "curl" };

/** @param {{ sample: import("../parts/play_types.js").Sample | undefined, name: string }} props `name` is the sample's */
export function CommandCard({ sample, name }) {
    const commands = sample?.branches[sample.active]?.commands ?? null;
    return commands === null ? null : html`<${CommandTabs} commands=${commands} name=${name} />`;
}

/** @param {{ commands: Partial<Commands>, name: string }} props `name` says which text the commands write */
export function CommandTabs({ commands, name }) {
    const [chosen, setChosen] = useState(/** @type {keyof Commands} */ ("shell"));
    const kinds = KINDS.filter((kind) => commands[kind] !== undefined);
    const kind = kinds.includes(chosen) ? chosen : (kinds[0] ?? "shell");
    const text = commands[kind] ?? "";
    return html`<section class="card commands" aria-labelledby="commands-title">
        <div class="section-head">
            <h2 id="commands-title">${t("play.commands")}<span class="chart-note">${name}</span></h2>
            <div class="button-row">${kinds.map((each) => html`<${CopyButton}
                key=${each} text=${commands[each] ?? ""} label=${t("play.copy_kind", { kind: kindName(each) })}
            />`)}</div>
        </div>
        <${Tabs} label=${t("play.commands")} value=${kind}
            tabs=${kinds.map((value) => ({ value, label: kindName(value) }))}
            onChange=${(/** @type {keyof Commands} */ value) => setChosen(value)}
        ><pre tabIndex=${0} role="group" aria-label=${kindName(kind)}><code>${text}</code></pre><//>
    </section>`;
}

/** @param {keyof Commands} kind */
function kindName(kind) {
    return kind === "shell" ? t("play.shell") : NAMES[kind];
}
