// The first page: how fast, how much, how old, how well.

import { html } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { aMinute, Rates } from "./chart.js";
import { byState, bytes, count, engine, number, plural, rate, seconds, setServerTime, span } from "./format.js";
import { useLive } from "./live.js";
import { Badge, Card, Command, Empty, Failure, Heavy, Loading, QueueLink } from "./parts.js";
import { link } from "./route.js";

async function look(told) {
  const [server, { stats }] = await Promise.all([
    call("AdminService/GetServerInfo"),
    told ?? call("AdminService/GetStats"), // until the first event comes
  ]);
  setServerTime(server.server_time);
  return { server, stats };
}

export function Overview() {
  const { value, error } = useLive("overview", look);
  return html`
    <h1>Overview</h1>
    <${Failure} error=${error} />
    ${value ? html`<${Shown} ...${value} />` : !error && html`<${Loading} />`}
  `;
}

function Shown({ server, stats }) {
  const totals = byState(stats.totals?.counts);
  const queues = stats.queues ?? [];
  const { idle_count = 0, busy_count = 0, quiet_count = 0, lost_count = 0 } = stats.workers ?? {};
  const workers = [
    [busy_count, "busy"],
    [idle_count, "idle"],
    [quiet_count, "quiet"],
    [lost_count, "lost"],
  ].filter(([of]) => of);
  const oldest = stats.totals?.oldest_waiting_age;
  return html`
    <${StoreHealth} store=${server.store} />
    <${Heavy} server=${server} />
    <div class="tiles">
      <${Tile} name="Queued" value=${count(totals.QUEUED)} kind="queued" href="#/jobs?state=QUEUED"
        note=${oldest ? `the oldest for ${span(seconds(oldest))}` : "nobody waits"} />
      <${Tile} name="In progress" value=${count(totals.IN_PROGRESS)} kind="in_progress" href="#/jobs?state=IN_PROGRESS"
        note="with workers now" />
      <${Tile} name="Scheduled" value=${count(totals.SCHEDULED)} kind="scheduled" href="#/jobs?state=SCHEDULED"
        note="for later, or for a retry" />
      <${Tile} name="Dead letters" value=${count(totals.FAILED)} kind="failed" href="#/dead"
        note=${totals.FAILED ? "look and replay" : "none"} />
      <${Tile} name="Workers" value=${count(idle_count + busy_count + quiet_count)} kind="canceled" href="#/workers"
        note=${workers.map(([of, state]) => `${count(of)} ${state}`).join(", ") || "none"} />
    </div>
    ${queues.length ? html`<${Rates} at=${stats.server_time} activity=${stats.totals.activity?.[0]} /><${Queues} queues=${queues} />` : html`<${FirstJob} />`}
  `;
}

const Tile = ({ name, value, note, kind, href }) => html`
  <${href ? "a" : "div"} class="tile ${kind}" href=${href}>
    <span class="name">${name}</span><span class="value">${value}</span><span class="note">${note}</span>
  <//>
`;

function StoreHealth({ store = {} }) {
  const promise = {
    DURABILITY_VOLATILE: "kept on no disk",
    DURABILITY_EVERYSEC: "on the disk within two seconds of an OK",
    DURABILITY_SYNCED: "on the disk before an OK",
    DURABILITY_REPLICATED: "with replicas before an OK",
  }[store.durability];
  const said = [
    engine(store),
    promise,
    number(store.used_bytes) ? `${bytes(store.used_bytes)} used` : "",
    store.round_trip && `answers in ${span(seconds(store.round_trip))}`,
  ];
  return html`<p class="health">
    <span class="dot ${store.connected ? "good" : "bad"}" aria-hidden="true"></span>
    ${store.connected ? "The store is there" : "The store is away"}: ${said.filter(Boolean).join(", ")}.${" "}
    <a href="#/server">More</a>
  </p>`;
}

const Queues = ({ queues }) => html`
  <${Card} title="Queues" aside=${html`<span class="quiet">${plural(queues.length, "queue")}</span>`}>
    <table class="stacked">
      <thead>
        <tr>
          <th>Queue</th><th class="number">Queued</th><th class="number">Oldest</th><th class="number">In progress</th>
          <th class="number">Scheduled</th><th class="number">Dead letters</th><th class="number">Completed</th>
          <th class="number">Done a minute</th><th class="number">Run time</th><th class="number">Workers</th>
        </tr>
      </thead>
      <tbody>${queues.map((queue) => html`<${QueueRow} key=${queue.queue} queue=${queue} />`)}</tbody>
    </table>
  <//>
`;

function QueueRow({ queue }) {
  const counts = byState(queue.counts);
  const [minute] = queue.activity ?? [];
  const cell = (name, state, kind = "") => html`<td class="number" data-name=${name}>
    <a class="count ${counts[state] ? kind : "none"}" href=${link(["queues", queue.queue], { state })}>${count(counts[state])}</a>
  </td>`;
  return html`<tr>
    <th scope="row"><${QueueLink} name=${queue.queue} /> ${queue.paused && html`<${Badge} kind="warn">Paused<//>`}</th>
    ${cell("Queued", "QUEUED")}
    <td class="number" data-name="Oldest">${span(seconds(queue.oldest_waiting_age))}</td>
    ${cell("In progress", "IN_PROGRESS")} ${cell("Scheduled", "SCHEDULED")} ${cell("Dead letters", "FAILED", "bad")}
    ${cell("Completed", "COMPLETED")}
    <td class="number" data-name="Done a minute">${minute ? rate(aMinute(minute, "completed_count")) : "–"}</td>
    <td class="number" data-name="Run time">${span(seconds(minute?.average_run_time))}</td>
    <td class="number" data-name="Workers">${count(queue.worker_count)}</td>
  </tr>`;
}

export const FirstJob = () => html`
  <${Empty} title="There are no jobs yet">
    <p>Make a first one from any terminal on this machine:</p>
    <${Command} line=${`curl -d '{"job": {"type": "hello", "payload": {"text": "world"}}}' ${location.origin}/jobwire.v1.JobService/CreateJob`} />
    <p>and let a worker take it, which runs any command with the payload on its standard input:</p>
    <${Command} line=${"jobwire work --exec 'tr a-z A-Z'"} />
  <//>
`;
