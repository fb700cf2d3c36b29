// Jobs that match a filter, page by page, and the form that says which.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { call } from "./api.js";
import { secondsSince, span, stateOf } from "./format.js";
import { useLive } from "./live.js";
import { Badge, Failure, JobLink, JobState, Loading, QueueLink, Text, Time } from "./parts.js";

const PAGE = 50; // rows

// What the address says, as the contract's JobFilter.
export function filterOf({ queue, state, type, user, label }) {
  const filter = {};
  if (queue) filter.queues = [queue];
  if (state) filter.states = [`JOB_STATE_${state}`];
  if (type) filter.types = [type];
  if (user) filter.user_id = user;
  if (label) filter.labels = labelsOf(label);
  return filter;
}

// "region=eu team=a" → {region: "eu", team: "a"}
function labelsOf(text) {
  return Object.fromEntries(
    text
      .split(/\s+/)
      .filter(Boolean)
      .map((pair) => {
        const [key, ...value] = pair.split("=");
        return [key, value.join("=")];
      }),
  );
}

export function FilterForm({ query, fields = [], change }) {
  const apply = (event) => {
    event.preventDefault();
    change(Object.fromEntries(new FormData(event.target)));
  };
  const shown = [...fields, ["type", "Type", "email.send"], ["user", "User", "user-42"], ["label", "Labels", "region=eu"]];
  const isSet = shown.some(([name]) => query[name]);
  const clear = () => change(Object.fromEntries(shown.map(([name]) => [name, ""])));
  return html`<form class="filter" onSubmit=${apply} key=${JSON.stringify(query)}>
    ${shown.map(
      ([name, title, example]) => html`<label key=${name}>
        <span>${title}</span>
        <input name=${name} defaultValue=${query[name] ?? ""} placeholder=${example} autocomplete="off" spellcheck=${false} />
      </label>`,
    )}
    <button type="submit" class="primary">Filter</button>
    ${isSet && html`<button type="button" onClick=${clear}>Clear</button>`}
  </form>`;
}

export function JobList({ filter, empty, hasQueue = true, hasState = false }) {
  const key = JSON.stringify(filter);
  const [place, setPlace] = useState({ key, tokens: [""] });
  const tokens = place.key === key ? place.tokens : [""];
  const token = tokens.at(-1);
  const { value, error } = useLive(`list ${key} ${token}`, () =>
    call("JobService/ListJobs", { filter, page_size: PAGE, page_token: token }),
  );
  const before = useRef(null); // the page that stays until the next one is there
  if (value) before.current = { key, value };
  useEffect(() => scrollTo(0, 0), [token]);
  if (error) return html`<${Failure} error=${error} />`;
  const shown = value ?? (before.current?.key === key ? before.current.value : null);
  if (!shown) return html`<${Loading} />`;
  const jobs = shown.jobs ?? [];
  const more = value?.next_page_token ?? "";
  const turn = (next) => setPlace({ key, tokens: next });
  return html`
    ${jobs.length
      ? html`<table class="stacked jobs" aria-busy=${String(!value)}>
          <thead>
            <tr>
              <th>Job</th>${hasState && html`<th>State</th>`}${hasQueue && html`<th>Queue</th>`}<th>Type</th>
              <th>What of it</th><th class="number">Priority</th><th class="number">Attempt</th><th class="number">When</th>
            </tr>
          </thead>
          <tbody>${jobs.map((job) => html`<${Row} key=${job.id} job=${job} hasQueue=${hasQueue} hasState=${hasState} />`)}</tbody>
        </table>`
      : more
        ? html`<p class="empty">None in the stretch that was looked through; there is more to look at.</p>`
        : empty}
    ${(tokens.length > 1 || more) &&
    html`<nav class="pages" aria-label="Pages of jobs">
      <button type="button" disabled=${!value || tokens.length < 2} onClick=${() => turn(tokens.slice(0, -1))}>← Back</button>
      <span class="quiet">Page ${tokens.length}</span>
      <button type="button" disabled=${!more} onClick=${() => turn([...tokens, more])}>Next →</button>
    </nav>`}
  `;
}

const Row = ({ job, hasQueue, hasState }) => html`<tr>
  <th scope="row"><${JobLink} id=${job.id} /></th>
  ${hasState && html`<td data-name="State"><${JobState} job=${job} /></td>`}
  ${hasQueue && html`<td data-name="Queue"><${QueueLink} name=${job.queue} /></td>`}
  <td data-name="Type" class="cut"><${Text} mono>${job.type ?? "–"}<//></td>
  <td data-name="What of it" class="cut"><${Gist} job=${job} /></td>
  <td data-name="Priority" class="number half">${job.priority}</td>
  <td data-name="Attempt" class="number half">${job.attempt ?? 0}</td>
  <td data-name="When" class="number">${when(job)}</td>
</tr>`;

// The one thing that is worth knowing of a job in this state.
function Gist({ job }) {
  const labels = Object.entries(job.labels ?? {});
  switch (stateOf(job)) {
    case "IN_PROGRESS": {
      const { fraction, message } = job.progress ?? {};
      const at = fraction === undefined ? "" : `${Math.round(fraction * 100)} % `;
      return html`<span class="mono">${job.lease?.worker_id}</span>${(at || message) && html` <${Text}>${at}${message}<//>`}
        ${job.cancel_requested && html` <${Badge} kind="warn">Cancel requested<//>`}`;
    }
    case "FAILED":
      return html`<${ErrorLine} error=${job.error} />`;
    case "CANCELED":
      return html`<${Text}>${job.cancel_reason}<//>`;
    case "SCHEDULED":
      if (job.error) return html`<${ErrorLine} error=${job.error} />`;
  }
  return html`${job.user_id && html`<${Badge}><${Text}>${job.user_id}<//><//>`}
  ${labels.slice(0, 3).map(([key, value]) => html` <${Badge} key=${key}><${Text}>${key}=${value}<//><//>`)}`;
}

const ErrorLine = ({ error = {} }) =>
  html`<code class="bad">${error.code}</code> <${Text}>${(error.message ?? "").split("\n", 1)[0].slice(0, 200)}<//>`;

function when(job) {
  switch (stateOf(job)) {
    case "QUEUED":
      return html`waits <${Waiting} at=${job.queue_time} />`;
    case "SCHEDULED":
      return html`due <${Time} at=${job.schedule_time} />`;
    case "IN_PROGRESS":
      return html`claimed <${Time} at=${job.attempts?.at(-1)?.start_time ?? job.start_time} />`;
    default:
      return html`<${Time} at=${job.finish_time} />`;
  }
}

const Waiting = ({ at }) => html`<time datetime=${at}>${span(Math.max(secondsSince(at), 0))}</time>`;
