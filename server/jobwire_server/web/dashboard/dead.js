// Dead letters: jobs that have FAILED, and their replay.

import { html, useState } from "./vendor/htm-preact.js";
import { may } from "./api.js";
import { Bulk } from "./bulk.js";
import { FilterForm, filterOf, JobList } from "./list.js";
import { Card, Empty } from "./parts.js";
import { go } from "./route.js";

export function DeadLetters({ query }) {
  const [asked, setAsked] = useState("");
  const filter = filterOf({ ...query, state: "FAILED" });
  const change = (chosen) => go(["dead"], { ...query, ...chosen });
  const isNarrow = ["queue", "type", "user", "label"].some((name) => query[name]);
  const which = isNarrow ? "that match the filter" : "of all queues";
  return html`
    <div class="title">
      <h1>Dead letters</h1>
      ${may("admin") &&
      html`<div class="buttons">
        <button type="button" class="primary" onClick=${() => setAsked("replay")}>Replay ${isNarrow ? "these" : "all"}…</button>
        <button type="button" class="danger" onClick=${() => setAsked("delete")}>Delete ${isNarrow ? "these" : "all"}…</button>
      </div>`}
    </div>
    <p class="quiet">Jobs that have failed for good: their retries or interruptions are used up, or the error was permanent.</p>
    <${Card}>
      <${FilterForm} query=${query} fields=${[["queue", "Queue", "default"]]} change=${change} />
      <${JobList}
        filter=${filter}
        empty=${html`<${Empty} title=${isNarrow ? "No dead letter matches" : "There are no dead letters"}>
          ${!isNarrow && html`<p>Every job has ended well, or is still at it.</p>`}
        <//>`}
      />
    <//>
    ${asked === "replay" &&
    html`<${Bulk}
      title="Replay dead letters"
      verb="Replay"
      kind="primary"
      rpc="JobService/RetryJobs"
      request=${{ filter }}
      counted="changed_count"
      close=${() => setAsked("")}
    >
      <p>The dead letters ${which} are queued anew, with fresh budgets. Those that fail meanwhile are left for the next time.</p>
    <//>`}
    ${asked === "delete" &&
    html`<${Bulk}
      title="Delete dead letters"
      verb="Delete"
      rpc="JobService/DeleteJobs"
      request=${{ filter }}
      counted="changed_count"
      close=${() => setAsked("")}
    >
      <p>The dead letters ${which} go with their history, and cannot be brought back.</p>
    <//>`}
  `;
}
