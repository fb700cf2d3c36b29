// The first page: how fast, how much, how old, how well.

import { html } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { Rates } from "./chart.js";
import { byState, bytes, count, number, plural, rate, seconds, setServerTime, short, span, words } from "./format.js";
import { useLive } from "./live.js";
import { Badge, Card, Command, Empty, Failure, Loading, QueueLink } from "./parts.js";
import { link } from "./route.js";

let hasStats = true;

async function look() {
  const [server, queues, stats] = await Promise.all([call("AdminService/GetServerInfo"), listQueues(), readStats()]);
  setServerTime(server.server_time);
  return { server, queues, stats: stats?.stats ?? null };
}

async function readStats() {
  if (!hasStats) return null;
  try {
    return await call("AdminService/GetStats");
  } catch (error) {
    if (!error.isNotBuilt) throw error;
    hasStats = false;
    return null;
  }
}

async function listQueues() {
  const found = [];
  let page_token = "";
  do {
    const page = await call("QueueService/ListQueues", { page_size: 1000, page_token });
    found.push(...(page.queues ?? []));
    page_token = page.next_page_token ?? "";
  } while (page_token && found.length < 1000);
  return found;
}

export function Overview() {
  const { value, error } = useLive("overview", look);
  return html`
    <h1>Overview</h1>
    <${Failure} error=${error} />
    ${value ? html`<${Shown} ...${value} />` : !error && html`<${Loading} />`}
  `;
}

function Shown({ server, queues, stats }) {
  const totals = queues.map((queue) => byState(queue.counts));
  const sum = (state) => totals.reduce((total, counts) => total + counts[state], 0);
  const numbers = new Map((stats?.queues ?? []).map((each) => [each.queue, each]));
  return html`
    <${StoreHealth} store=${server.store} />
    <div class="tiles">
      <${Tile} name="Queued" value=${count(sum("QUEUED"))} kind="queued" note=${oldest(queues)} />
      <${Tile} name="In progress" value=${count(sum("IN_PROGRESS"))} kind="in_progress" note=${workersNote(stats)} />
      <${Tile} name="Scheduled" value=${count(sum("SCHEDULED"))} kind="scheduled" note="for later, or for a retry" />
      <${Tile} name="Dead letters" value=${count(sum("FAILED"))} kind="failed" href="#/dead"
        note=${sum("FAILED") ? "look and replay" : "none"} />
    </div>
    ${queues.length
      ? html`<${Rates} stats=${stats} /><${Queues} queues=${queues} numbers=${numbers} />`
      : html`<${FirstJob} />`}
  `;
}

const Tile = ({ name, value, note, kind, href }) => html`
  <${href ? "a" : "div"} class="tile ${kind}" href=${href}>
    <span class="name">${name}</span><span class="value">${value}</span><span class="note">${note}</span>
  <//>
`;

function oldest(queues) {
  const ages = queues.map((queue) => seconds(queue.oldest_waiting_age)).filter((age) => age !== undefined);
  return ages.length ? `the oldest for ${span(Math.max(...ages))}` : "nobody waits";
}

function workersNote(stats) {
  if (!stats) return "with workers now";
  const { idle_count = 0, busy_count = 0, quiet_count = 0 } = stats.workers ?? {};
  return `${plural(idle_count + busy_count + quiet_count, "worker")}, ${count(idle_count)} idle`;
}

function StoreHealth({ store = {} }) {
  const promise = {
    DURABILITY_VOLATILE: "kept on no disk",
    DURABILITY_EVERYSEC: "on the disk within two seconds of an OK",
    DURABILITY_SYNCED: "on the disk before an OK",
    DURABILITY_REPLICATED: "with replicas before an OK",
  }[store.durability];
  const said = [
    `${store.engine} ${store.engine_version ?? ""}`,
    promise,
    number(store.used_bytes) ? `${bytes(store.used_bytes)} used` : "",
    store.round_trip && `answers in ${span(seconds(store.round_trip))}`,
  ];
  return html`<p class="health">
    <span class="dot ${store.connected ? "good" : "bad"}" aria-hidden="true"></span>
    <span>${store.connected ? "The store is there" : "The store is away"}: ${said.filter(Boolean).join(", ")}.</span>
    <a href="#/server">More</a>
  </p>`;
}

const Queues = ({ queues, numbers }) => html`
  <${Card} title="Queues" aside=${html`<span class="quiet">${plural(queues.length, "queue")}</span>`}>
    <table class="stacked">
      <thead>
        <tr>
          <th>Queue</th><th class="number">Queued</th><th class="number">Oldest</th><th class="number">In progress</th>
          <th class="number">Scheduled</th><th class="number">Dead letters</th><th class="number">Completed</th>
          <th class="number">Done a minute</th><th class="number">Run time</th>
        </tr>
      </thead>
      <tbody>${queues.map((queue) => html`<${QueueRow} key=${queue.name} queue=${queue} numbers=${numbers.get(queue.name)} />`)}</tbody>
    </table>
  <//>
`;

function QueueRow({ queue, numbers }) {
  const counts = byState(queue.counts);
  const [minute] = numbers?.activity ?? [];
  const cell = (name, state, kind = "") => html`<td class="number" data-name=${name}>
    <a class="count ${counts[state] ? kind : "none"}" href=${link(["queues", queue.name], { state })}>${count(counts[state])}</a>
  </td>`;
  return html`<tr>
    <th scope="row"><${QueueLink} name=${queue.name} /> ${queue.paused && html`<${Badge} kind="warn">Paused<//>`}</th>
    ${cell("Queued", "QUEUED")}
    <td class="number" data-name="Oldest">${span(seconds(queue.oldest_waiting_age))}</td>
    ${cell("In progress", "IN_PROGRESS")} ${cell("Scheduled", "SCHEDULED")} ${cell("Dead letters", "FAILED", "bad")}
    ${cell("Completed", "COMPLETED")}
    <td class="number" data-name="Done a minute">${minute ? rate(perMinute(minute, "completed_count")) : "–"}</td>
    <td class="number" data-name="Run time">${span(seconds(minute?.average_run_time))}</td>
  </tr>`;
}

export function perMinute(activity, name) {
  const window = seconds(activity?.window) || 60;
  return (number(activity?.[name]) * 60) / window;
}

export const FirstJob = () => html`
  <${Empty} title="There are no jobs yet">
    <p>Make a first one from any terminal on this machine:</p>
    <${Command} line=${`curl -d '{"job": {"type": "hello", "payload": {"text": "world"}}}' ${location.origin}/jobwire.v1.JobService/CreateJob`} />
    <p>and let a worker take it, which runs any command with the payload on its standard input:</p>
    <${Command} line=${"jobwire work --exec 'tr a-z A-Z'"} />
  <//>
`;
