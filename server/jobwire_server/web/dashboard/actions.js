// What can be done to one job. Each call carries the etag that was seen: what has moved on since is not hit by it.

import { html, useState } from "./vendor/htm-preact.js";
import { call, may } from "./api.js";
import { ENDED, stateOf } from "./format.js";
import { Dialog } from "./parts.js";
import { go } from "./route.js";

export function Actions({ job, refresh }) {
  const [asked, setAsked] = useState(null);
  const state = stateOf(job);
  const isEnded = ENDED.has(state);
  const offers = [
    state === "SCHEDULED" && ["Run now", RunNow, "primary"],
    isEnded && ["Replay", Replay, "primary"],
    ["Priority", Priority],
    !isEnded && !job.cancel_requested && ["Cancel", Cancel, "danger"],
    ["Delete", Delete, "danger"],
  ].filter(Boolean);
  if (!may("producer")) return null;
  const ask = (Asked) => setAsked({ Asked, job }); // as it is now: it may change while somebody thinks
  return html`
    <div class="buttons">
      ${offers.map(
        ([name, Asked, kind]) =>
          html`<button key=${name} type="button" class=${kind} onClick=${() => ask(Asked)}>${name}…</button>`,
      )}
    </div>
    ${asked && html`<${asked.Asked} job=${asked.job} refresh=${refresh} close=${() => setAsked(null)} />`}
  `;
}

const edit = (job, changed, update_mask) =>
  call("JobService/UpdateJob", { job_id: job.id, edit: { job: changed, update_mask, etag: job.etag } });

const RunNow = ({ job, refresh, close }) => html`<${Dialog}
  title="Run it now?"
  verb="Run now"
  close=${close}
  act=${() => edit(job, {}, "scheduleTime").then(refresh)}
>
  <p>It joins queue <span class="mono">${job.queue}</span> at once, and runs when a worker takes it.</p>
<//>`;

const Replay = ({ job, refresh, close }) => html`<${Dialog}
  title="Replay this job?"
  verb="Replay"
  close=${close}
  act=${() => call("JobService/RetryJob", { job_id: job.id, etag: job.etag }).then(refresh)}
>
  <p>It goes to the end of queue <span class="mono">${job.queue}</span> with fresh budgets. Its result and error are cleared;
    its history stays.</p>
<//>`;

function Priority({ job, refresh, close }) {
  const [priority, setPriority] = useState(job.priority);
  return html`<${Dialog}
    title="Change the priority"
    verb="Change"
    close=${close}
    act=${() => edit(job, { priority }, "priority").then(refresh)}
  >
    <label>
      Priority, 1 is served first
      <input type="number" min="1" max="10" required value=${priority} onInput=${(event) => setPriority(event.target.valueAsNumber)} />
    </label>
  <//>`;
}

function Cancel({ job, refresh, close }) {
  const [reason, setReason] = useState("");
  const isRunning = stateOf(job) === "IN_PROGRESS";
  return html`<${Dialog}
    title="Cancel this job?"
    verb="Cancel the job"
    kind="danger"
    close=${close}
    act=${() => call("JobService/CancelJob", { job_id: job.id, reason, etag: job.etag }).then(refresh)}
  >
    <p>${isRunning ? "Its worker is asked to stop, and has 30 s for it. If it completes first, that counts." : "It will not run unless somebody replays it."}</p>
    <label>
      Reason, for people
      <input maxlength="200" autocomplete="off" value=${reason} onInput=${(event) => setReason(event.target.value)} />
    </label>
  <//>`;
}

function Delete({ job, refresh, close }) {
  const isRunning = stateOf(job) === "IN_PROGRESS";
  const act = async () => {
    // The etag guards against another life of the job; a running one changes it by itself, and is meant all the same.
    await call("JobService/DeleteJob", { job_id: job.id, force: isRunning, ...(!isRunning && { etag: job.etag }) });
    go(["queues", job.queue], { state: stateOf(job) });
  };
  return html`<${Dialog} title="Delete this job?" verb="Delete" kind="danger" close=${close} act=${act}>
    <p>It goes with its history, and cannot be brought back.
      ${isRunning && " Its worker is told to stop, and whatever it reports is refused."}</p>
  <//>`;
}
