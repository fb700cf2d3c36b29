// Jobs of any queue, found by queue, state, type, user or label.

import { html } from "./vendor/htm-preact.js";
import { STATES, words } from "./format.js";
import { FilterForm, filterOf, JobList } from "./list.js";
import { FirstJob } from "./overview.js";
import { Card, Empty } from "./parts.js";
import { go, link } from "./route.js";

export function Jobs({ query }) {
  const isNarrow = Object.values(query).some(Boolean);
  const change = (chosen) => go(["jobs"], { ...query, ...chosen });
  return html`
    <h1>Jobs</h1>
    <nav class="tabs" aria-label="States">
      <a href=${link(["jobs"], { ...query, state: "" })} aria-current=${query.state ? undefined : "page"}>All</a>
      ${STATES.map(
        (state) => html`<a
          key=${state}
          href=${link(["jobs"], { ...query, state })}
          aria-current=${state === query.state ? "page" : undefined}
          >${words(state)}</a
        >`,
      )}
    </nav>
    <${Card}>
      <${FilterForm} query=${query} fields=${[["queue", "Queue", "default"]]} change=${change} />
      <${JobList}
        filter=${filterOf(query)}
        hasState=${!query.state}
        empty=${isNarrow ? html`<${Empty} title="No job matches" />` : html`<${FirstJob} />`}
      />
    <//>
  `;
}
