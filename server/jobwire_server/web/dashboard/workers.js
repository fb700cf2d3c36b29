// Who works: what each said of itself, what it holds, and how to drain it.

import { html, useState } from "./vendor/htm-preact.js";
import { call, may } from "./api.js";
import { count, plural, setServerTime, short, words } from "./format.js";
import { useLive } from "./live.js";
import { Badge, Card, Command, Dialog, Empty, Facts, Failure, JobLink, Loading, QueueLink, Text, Time } from "./parts.js";

const STATES = ["BUSY", "IDLE", "QUIET", "LOST"];

async function look() {
  const [{ server_time }, { workers = [], next_page_token: more }] = await Promise.all([
    call("AdminService/GetServerInfo"),
    call("WorkerService/ListWorkers", { page_size: 1000 }),
  ]);
  setServerTime(server_time);
  return { workers, more: Boolean(more) };
}

export function Workers() {
  const { value, error, refresh } = useLive("workers", look);
  return html`
    <h1>Workers</h1>
    <${Failure} error=${error} />
    ${value ? html`<${Shown} ...${value} refresh=${refresh} />` : !error && html`<${Loading} />`}
  `;
}

const stateOf = (worker) => short(worker.state, "WORKER_STATE");

function Shown({ workers, more, refresh }) {
  const [asked, setAsked] = useState(null);
  if (!workers.length) {
    return html`<${Empty} title="There are no workers">
      <p>A worker shows up here with its first claim. Any command can be one:</p>
      <${Command} line=${"jobwire work --exec 'tr a-z A-Z'"} />
    <//>`;
  }
  const counts = STATES.map((state) => [state, workers.filter((worker) => stateOf(worker) === state).length]);
  return html`
    <p class="quiet">
      ${more ? "The first " : ""}${plural(workers.length, "worker")}:
      ${counts.filter(([, of]) => of).map(([state, of]) => ` ${count(of)} ${state.toLowerCase()}`).join(",")}
    </p>
    <${Card}>
      <table class="stacked">
        <thead>
          <tr><th>Worker</th><th>State</th><th>Queues</th><th class="number">Holds</th><th class="number">Last beat</th><th>Runs</th><th><span class="hidden">Actions</span></th></tr>
        </thead>
        <tbody>${workers.map((worker) => html`<${Row} key=${worker.identity.id} worker=${worker} ask=${setAsked} />`)}</tbody>
      </table>
    <//>
    ${asked && html`<${Drain} ...${asked} refresh=${refresh} close=${() => setAsked(null)} />`}
  `;
}

function Row({ worker, ask }) {
  const { identity, queues = [], held_job_ids: held = [] } = worker;
  const state = stateOf(worker);
  const directive = short(worker.directive, "WORKER_DIRECTIVE");
  const isDrained = directive === "QUIET" || directive === "TERMINATE";
  return html`<tr>
    <th scope="row">
      <span class="mono">${identity.id}</span>
      ${identity.host && html`<div class="quiet"><${Text}>${identity.host}<//>${identity.pid && `, pid ${identity.pid}`}</div>`}
    </th>
    <td data-name="State">
      <${Badge} kind=${`worker-${state.toLowerCase()}`}>${words(state)}<//>
      ${directive === "TERMINATE" && html` <${Badge} kind="warn">Told to end<//>`}
    </td>
    <td data-name="Queues">${queues.map((name, place) => html`${place > 0 && ", "}<${QueueLink} name=${name} />`)}</td>
    <td data-name="Holds" class="number">
      ${worker.held_count
        ? html`<details class="held"><summary>${count(worker.held_count)} of ${count(worker.max_in_flight)}</summary>
            <ul>${held.map((id) => html`<li key=${id}><${JobLink} id=${id} /></li>`)}</ul></details>`
        : `0 of ${count(worker.max_in_flight)}`}
    </td>
    <td data-name="Last beat" class="number"><${Time} at=${worker.beat_time} /></td>
    <td data-name="Runs"><${Text}>${[identity.runtime, identity.version].filter(Boolean).join(", ") || "–"}<//></td>
    <td class="acts">
      ${may("admin") &&
      html`<div class="buttons">
        ${isDrained
          ? html`<button type="button" class="small" onClick=${() => ask({ worker, directive: "NONE" })}>Let it work…</button>`
          : html`<button type="button" class="small" onClick=${() => ask({ worker, directive: "QUIET" })}>Quiet…</button>`}
        ${directive !== "TERMINATE" &&
        html`<button type="button" class="small danger" onClick=${() => ask({ worker, directive: "TERMINATE" })}>Terminate…</button>`}
      </div>`}
    </td>
  </tr>`;
}

const DRAINS = {
  QUIET: ["Quiet this worker?", "Quiet", "It gets no further job from any server, finishes what it holds, and keeps running."],
  TERMINATE: [
    "Terminate this worker?",
    "Terminate",
    "It gets no further job, finishes what it can, gives the rest back, and ends its process.",
  ],
  NONE: ["Let this worker work again?", "Let it work", "It gets jobs again, unless it has ended already."],
};

function Drain({ worker, directive, refresh, close }) {
  const [title, verb, said] = DRAINS[directive];
  const { id } = worker.identity;
  const act = () =>
    call("WorkerService/DrainWorker", { worker_id: id, directive: `WORKER_DIRECTIVE_${directive}` }).then(refresh);
  return html`<${Dialog} title=${title} verb=${verb} kind=${directive === "TERMINATE" ? "danger" : "primary"} act=${act} close=${close}>
    <p>${said}</p>
    <${Facts} facts=${[["Worker", html`<span class="mono">${id}</span>`], ["Holds", plural(worker.held_count ?? 0, "job")]]} />
  <//>`;
}
