// One job: where it stands and why, what it carries, what happened to it, and what can be done.

import { html } from "./vendor/htm-preact.js";
import { Actions } from "./actions.js";
import { call } from "./api.js";
import { Body } from "./body.js";
import { count, number, seconds, secondsSince, setServerTime, short, span, stateOf, words } from "./format.js";
import { ofJob, useLive } from "./live.js";
import { Badge, Bar, Card, Facts, Failure, JobState, Loading, QueueLink, Text, Time } from "./parts.js";
import { explain, lineOf } from "./why.js";

async function look(job_id) {
  const [{ server_time }, { job }] = await Promise.all([
    call("AdminService/GetServerInfo"),
    call("JobService/GetJob", { job_id }),
  ]);
  setServerTime(server_time);
  return { job, line: await lineOf(job) };
}

export function Job({ name: id }) {
  const { value, error, refresh } = useLive(`job ${id}`, () => look(id), ofJob(id));
  const job = value?.job;
  return html`
    <p class="crumbs"><a href="#/">Overview</a> / ${job ? html`<${QueueLink} name=${job.queue} />` : "job"} / job</p>
    <div class="title">
      <h1 class="mono">${id}</h1>
      ${job && html`<${JobState} job=${job} />`}
      ${job?.cancel_requested && !job.finish_time && html`<${Badge} kind="warn">Cancel requested<//>`}
      ${job && !error && html`<${Actions} job=${job} refresh=${refresh} />`}
    </div>
    <${Failure} error=${error} />
    ${error?.reason === "JOB_NOT_FOUND" &&
    html`<p>It was deleted, its retention is over, or it never was. <a href="#/jobs">Look among the jobs</a></p>`}
    ${job ? html`<${Shown} ...${value} />` : !error && html`<${Loading} />`}
  `;
}

function Shown({ job, line }) {
  const why = explain(job, line);
  const labels = Object.entries(job.labels ?? {});
  return html`
    <section class="why card ${stateOf(job).toLowerCase()}" data-reasons=${why.reasons.join()}>
      <p class="said"><${Text}>${why.said}<//></p>
      <p class="next"><${Text}>${why.next}<//></p>
      ${job.progress && stateOf(job) === "IN_PROGRESS" && html`<${Progress} progress=${job.progress} />`}
    </section>
    <div class="columns">
      <div>
        <${Card} title="Payload"><${Body} body=${job.payload} name="Payload" /><//>
        ${job.error && html`<${Card} title="Error" kind="bad"><${Trouble} error=${job.error} /><//>`}
        ${job.result && html`<${Card} title="Result"><${Body} body=${job.result} name="Result" /><//>`}
        <${Card} title="Attempts"><${Attempts} attempts=${job.attempts ?? []} /><//>
        ${job.http && html`<${Card} title="HTTP request"><${Request} http=${job.http} /><//>`}
      </div>
      <div>
        <${Card} title="Facts">
          <${Facts}
            facts=${[
              ["Queue", html`<${QueueLink} name=${job.queue} />`],
              ["Type", job.type && html`<${Text} mono>${job.type}<//>`],
              ["User", job.user_id && html`<${Text} mono>${job.user_id}<//>`],
              ["Priority", job.priority],
              ["Worker", job.lease && html`<${Text} mono>${job.lease.worker_id}<//>`],
              ["Created", html`<${Time} at=${job.create_time} />`],
              ["Scheduled for", job.schedule_time && html`<${Time} at=${job.schedule_time} />`],
              ["In line since", job.queue_time && html`<${Time} at=${job.queue_time} />`],
              ["Started", job.start_time && html`<${Time} at=${job.start_time} />`],
              ["Ended", job.finish_time && html`<${Time} at=${job.finish_time} />`],
              ["Removed", job.purge_time && html`<${Time} at=${job.purge_time} />`],
              ["Expires", job.expire_time && html`<${Time} at=${job.expire_time} />`],
              ["Retries", `${job.retry_count ?? 0} of ${job.retry_policy?.max_retries ?? 0}`],
              ["Interruptions", `${job.interruption_count ?? 0} of ${job.retry_policy?.max_interruptions ?? 0}`],
              ["Longest attempt", job.execution_timeout && span(seconds(job.execution_timeout))],
              ["Fence", job.fence && html`<span class="mono">${job.fence}</span>`],
              ["Version", count(job.version)],
              ["Webhook", job.webhook && html`<${Text} mono>${job.webhook.url}<//>`],
            ]}
          />
        <//>
        ${labels.length > 0 &&
        html`<${Card} title="Labels">
          <${Facts} facts=${labels.map(([key, value]) => [key, html`<${Text} mono>${value || "(empty)"}<//>`])} />
        <//>`}
      </div>
    </div>
  `;
}

const Progress = ({ progress: { fraction, message } }) => html`<div class="progress">
  <${Bar} fraction=${fraction} label="Progress" />
  <span>${fraction !== undefined && `${Math.round(fraction * 100)} %`} <${Text}>${message}<//></span>
</div>`;

const Trouble = ({ error }) => html`
  <p><code class="bad">${error.code || "no code"}</code>${error.worker_id && html` <span class="quiet">at <bdi class="mono">${error.worker_id}</bdi></span>`}</p>
  ${error.message && html`<pre class="body" tabindex="0" aria-label="Error message">${error.message}</pre>`}
  ${Object.entries(error.details ?? {}).map(
    ([key, value]) => html`<details key=${key}><summary><${Text} mono>${key}<//></summary><pre class="body" tabindex="0">${value}</pre></details>`,
  )}
`;

function Attempts({ attempts }) {
  if (!attempts.length) return html`<p class="quiet">No attempt yet.</p>`;
  const from = Date.parse(attempts[0].start_time);
  const lasts = ({ start_time, end_time }) =>
    end_time ? (Date.parse(end_time) - Date.parse(start_time)) / 1000 : Math.max(secondsSince(start_time), 0);
  const until = Math.max(...attempts.map((each) => Date.parse(each.start_time) / 1000 + lasts(each)));
  const whole = Math.max(until - from / 1000, 0.001);
  const percent = (part) => `${Math.min(Math.max((part / whole) * 100, 0), 100)}%`;
  return html`<ol class="attempts">
    ${attempts.map((attempt) => {
      const outcome = short(attempt.outcome, "ATTEMPT_OUTCOME");
      const left = (Date.parse(attempt.start_time) - from) / 1000;
      return html`<li key=${attempt.number} class="outcome-${outcome.toLowerCase()}">
        <div class="line">
          <strong>${attempt.number}</strong>
          <${Badge} kind="outcome">${words(outcome)}<//>
          <bdi class="mono worker">${attempt.worker_id}</bdi>
          <span class="quiet"><${Time} at=${attempt.start_time} />, ${outcome === "RUNNING" ? "for" : "took"} ${span(lasts(attempt))}</span>
        </div>
        <div class="track"><span class="stretch" style=${{ left: percent(left), width: percent(lasts(attempt)) }}></span></div>
        ${attempt.error &&
        html`<p class="trouble"><code class="bad">${attempt.error.code}</code> <${Text}>${(attempt.error.message ?? "").split("\n", 1)[0]}<//></p>`}
      </li>`;
    })}
  </ol>`;
}

function Request({ http }) {
  const rows = (title, pairs) =>
    pairs.length > 0 &&
    html`<h3>${title}</h3>
      <table class="plain">
        <tbody>${pairs.map(([name, value], place) => html`<tr key=${place}><th scope="row"><${Text} mono>${name}<//></th><td><${Text} mono>${value}<//></td></tr>`)}</tbody>
      </table>`;
  const flat = (values = []) =>
    values.flatMap(({ name, values: each = [] }) =>
      each.length ? each.map(({ value }) => [name, value ?? "(no value)"]) : [[name, "(no value)"]],
    );
  return html`
    ${rows("Headers", flat(http.headers))} ${rows("Query", flat(http.query_params))}
    ${rows("Route", Object.entries(http.route_params ?? {}))}
  `;
}
