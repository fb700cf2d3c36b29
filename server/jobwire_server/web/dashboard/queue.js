// One queue: its jobs by state, and what an operator does to it.

import { html, useState } from "./vendor/htm-preact.js";
import { call, may } from "./api.js";
import { Bulk } from "./bulk.js";
import { Rates } from "./chart.js";
import { byState, count, plural, seconds, setServerTime, span, STATES, words } from "./format.js";
import { FilterForm, filterOf, JobList } from "./list.js";
import { useLive } from "./live.js";
import { Badge, Card, Dialog, Empty, Facts, Failure, Loading, Time } from "./parts.js";
import { go, link } from "./route.js";

const PURGED = ["QUEUED", "SCHEDULED", "FAILED", "COMPLETED", "CANCELED", "EXPIRED"];

async function look(name, told) {
  const [{ queue }, { stats }] = await Promise.all([
    call("QueueService/GetQueue", { name }),
    told ?? call("AdminService/GetStats", { queues: [name] }), // until the first event comes
  ]);
  setServerTime(stats.server_time);
  return { queue, stats, numbers: stats.queues?.find((each) => each.queue === name) };
}

export function Queue({ name, query }) {
  const { value, error, refresh } = useLive(`queue ${name}`, (told) => look(name, told));
  return html`
    <p class="crumbs"><a href="#/">Overview</a> / queue</p>
    <div class="title">
      <h1 class="mono">${name}</h1>
      ${value?.queue.paused && html`<${Badge} kind="warn">Paused<//>`}
      ${value && html`<${Actions} queue=${value.queue} refresh=${refresh} />`}
    </div>
    <${Failure} error=${error} />
    ${value ? html`<${Shown} ...${value} query=${query} />` : !error && html`<${Loading} />`}
  `;
}

function Shown({ queue, stats, numbers, query }) {
  const counts = byState(queue.counts);
  const state = STATES.includes(query.state) ? query.state : STATES.find((each) => counts[each]) ?? "QUEUED";
  const change = (chosen) => go(["queues", queue.name], { ...query, state, ...chosen });
  return html`
    <${Facts}
      facts=${[
        ["Oldest waiting", queue.oldest_waiting_age && span(seconds(queue.oldest_waiting_age))],
        ["At once at most", queue.max_in_flight && plural(queue.max_in_flight, "job")],
        ["A level of priority is worth", span(seconds(queue.ageing ?? "60s"))],
        ["Ended jobs stay", queue.retention ? span(seconds(queue.retention)) : "1 d completed, 7 d otherwise"],
        ["Run time", numbers?.activity?.[0]?.average_run_time && span(seconds(numbers.activity[0].average_run_time))],
        ["Workers", numbers && count(numbers.worker_count)],
        ["Completed ever", numbers && count(numbers.completed_total)],
        ["Failed ever", numbers && count(numbers.failed_total)],
        ["First seen", html`<${Time} at=${queue.create_time} />`],
      ]}
    />
    ${numbers && html`<${Rates} queue=${queue.name} at=${stats.server_time} activity=${numbers.activity?.[0]} />`}
    <nav class="tabs" aria-label="States">
      ${STATES.map(
        (each) => html`<a
          key=${each}
          href=${link(["queues", queue.name], { ...query, state: each })}
          aria-current=${each === state ? "page" : undefined}
          >${words(each)} <span class="count">${count(counts[each])}</span></a
        >`,
      )}
    </nav>
    <${Card}>
      <${FilterForm} query=${query} change=${change} />
      <${JobList}
        filter=${filterOf({ ...query, state, queue: queue.name })}
        hasQueue=${false}
        empty=${html`<${Empty} title=${`No job here is ${words(state).toLowerCase()}`} />`}
      />
    <//>
  `;
}

function Actions({ queue, refresh }) {
  const [asked, setAsked] = useState("");
  const [error, setError] = useState(null);
  const close = () => setAsked("");
  const pause = async (paused) => {
    await call("QueueService/UpdateQueue", { queue: { name: queue.name, paused }, update_mask: "paused" });
    await refresh();
  };
  const resume = () => pause(false).then(() => setError(null), setError);
  if (!may("admin")) return null;
  return html`
    <div class="buttons">
      ${queue.paused
        ? html`<button type="button" class="primary" onClick=${resume}>Resume</button>`
        : html`<button type="button" onClick=${() => setAsked("pause")}>Pause…</button>`}
      <button type="button" class="danger" onClick=${() => setAsked("purge")}>Purge…</button>
    </div>
    <${Failure} error=${error} />
    ${asked === "pause" &&
    html`<${Dialog} title=${`Pause ${queue.name}?`} verb="Pause" act=${() => pause(true)} close=${close}>
      <p>No further job of it is claimed, on any server, until it is resumed. What runs goes on; new jobs are accepted.</p>
    <//>`}
    ${asked === "purge" && html`<${Purge} queue=${queue} refresh=${refresh} close=${close} />`}
  `;
}

function Purge({ queue, refresh, close }) {
  const counts = byState(queue.counts);
  const [states, setStates] = useState(["QUEUED", "SCHEDULED"]);
  const toggle = (state) =>
    setStates((chosen) => (chosen.includes(state) ? chosen.filter((each) => each !== state) : [...chosen, state]));
  return html`<${Bulk}
    title=${`Purge ${queue.name}`}
    verb="Delete"
    rpc="QueueService/PurgeQueue"
    request=${{ name: queue.name, states: states.map((state) => `JOB_STATE_${state}`) }}
    counted="deleted_count"
    isReady=${states.length > 0}
    done=${refresh}
    close=${close}
  >
    <p>Deleted jobs leave no trace and cannot be brought back. Running jobs are not touched; the queue and its settings stay.</p>
    <fieldset>
      <legend>Jobs that are</legend>
      ${PURGED.map(
        (state) => html`<label key=${state} class="check">
          <input type="checkbox" checked=${states.includes(state)} onChange=${() => toggle(state)} />
          ${words(state)} <span class="quiet">${count(counts[state])}</span>
        </label>`,
      )}
    </fieldset>
  <//>`;
}
