/** The place of the view Inside, which this version does not have: says so, and names the commands that do the work. */
import { html } from "../parts/html.js";
import { t } from "../parts/language.js";
import { Empty } from "../parts/states.js";

export function InsideView() {
    return html`<${Empty} title=${t("inside.missing")}>
        <p>${t("inside.instead")}</p>
        <pre><code>tinyllm score model story.txt --tokens</code></pre>
    <//>`;
}
