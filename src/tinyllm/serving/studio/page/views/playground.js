/** The place of the view Playground, which this version does not have: says so, and names the commands that do the work. */
import { html } from "../parts/html.js";
import { t } from "../parts/language.js";
import { Empty } from "../parts/states.js";

export function PlaygroundView() {
    return html`<${Empty} title=${t("playground.missing")}>
        <p>${t("playground.instead")}</p>
        <pre><code>tinyllm generate "Once upon a time"</code></pre>
    <//>`;
}
