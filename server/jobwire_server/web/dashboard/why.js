// Why a job is not running, and what comes next: the words of `jobwire why` (client/python/jobwire_client/cli/why.py),
// with buttons of this page where that names commands. tests/web/ holds the two against each other.

import { call } from "./api.js";
import { byState, count, now, plural, relative, stateOf } from "./format.js";

const LOOKED_AT = 1000; // jobs in line that are read before "more than"

// What stands around a waiting job; null for any other.
export async function lineOf(job) {
  if (stateOf(job) !== "QUEUED") return null;
  const [{ queue }, { jobs = [] }] = await Promise.all([
    call("QueueService/GetQueue", { name: job.queue }),
    call("JobService/ListJobs", {
      filter: { queues: [job.queue], states: ["JOB_STATE_QUEUED"] },
      page_size: LOOKED_AT,
    }),
  ]);
  const place = jobs.findIndex((other) => other.id === job.id);
  return {
    isPaused: Boolean(queue.paused),
    inFlight: byState(queue.counts).IN_PROGRESS,
    ceiling: queue.max_in_flight,
    ahead: place < 0 ? jobs.length : place,
    isMore: place < 0 && jobs.length > 0,
  };
}

// {reasons, said, next}
export function explain(job, line) {
  switch (stateOf(job)) {
    case "QUEUED":
      return inLine(job, line);
    case "SCHEDULED":
      return scheduled(job);
    case "IN_PROGRESS":
      return running(job);
    case "COMPLETED":
      return { reasons: ["ENDED"], said: `It completed ${relative(job.finish_time)}.`, next: gone(job) };
    case "FAILED": {
      const said = `It failed for good ${relative(job.finish_time)}: ${firstLine(job.error)}; ${attempts(job)}.`;
      return { reasons: ["ENDED"], said, next: again(job) };
    }
    case "CANCELED": {
      const reason = job.cancel_reason ? `: ${job.cancel_reason}` : "";
      return { reasons: ["ENDED"], said: `It was canceled ${relative(job.finish_time)}${reason}.`, next: again(job) };
    }
    case "EXPIRED":
      return { reasons: ["ENDED"], said: `Nobody had started it by its time, ${relative(job.expire_time)}.`, next: again(job) };
  }
  return { reasons: ["UNKNOWN"], said: "Its state is newer than this page.", next: "Load the page anew." };
}

function inLine(job, { isPaused, inFlight, ceiling, ahead, isMore }) {
  const reasons = [];
  const said = [];
  const next = [];
  if (isPaused) {
    reasons.push("QUEUE_PAUSED");
    said.push(`queue ${job.queue} is paused`);
    next.push("Resume the queue, and its jobs run again");
  }
  if (ceiling !== undefined && inFlight >= ceiling) {
    reasons.push("QUEUE_AT_CEILING");
    said.push(`queue ${job.queue} runs ${count(inFlight)} jobs, and may run ${count(ceiling)} at once`);
    next.push("It moves up when one of those ends");
  }
  if (ahead) {
    reasons.push("JOBS_AHEAD");
    said.push(`${isMore ? "more than " : ""}${plural(ahead, "job")} ${ahead === 1 ? "is" : "are"} ahead of it`);
  }
  if (!reasons.length) {
    reasons.push("NO_FREE_WORKER");
    said.push(`it is the next in queue ${job.queue}, and no worker with a free hand has taken it yet`);
  }
  if (!next.length) {
    next.push(`A worker of queue ${job.queue} takes it when its turn comes (${count(inFlight)} running there now)`);
  }
  if (job.attempt) said.push(attempts(job));
  return { reasons, said: capital(`${said.join("; ")}.`), next: `${next.join("; ")}.${expiry(job)}` };
}

function scheduled(job) {
  const due = `It joins queue ${job.queue} ${job.attempt ? "again " : ""}${relative(job.schedule_time)}; “Run now” starts it sooner.`;
  if (job.retry_count || job.interruption_count) {
    const error = job.error ? `: ${firstLine(job.error)}` : "";
    return {
      reasons: ["WAITS_FOR_RETRY"],
      said: `It waits to be tried again${error}; ${attempts(job)}.`,
      next: due + expiry(job),
    };
  }
  if (job.attempt) return { reasons: ["GIVEN_BACK"], said: `Its worker gave it back; ${attempts(job)}.`, next: due };
  return { reasons: ["SCHEDULED"], said: "It is scheduled for later.", next: due + expiry(job) };
}

function running(job) {
  const { worker_id: worker, expire_time: deadline, acknowledged } = job.lease ?? {};
  if (!acknowledged) {
    return {
      reasons: ["BEING_DELIVERED"],
      said: `It is on its way to worker ${worker}.`,
      next: `The worker acknowledges it, or it goes back in line ${relative(deadline)}.`,
    };
  }
  const since = job.attempts?.at(-1)?.start_time ?? job.start_time;
  const said = `It runs at worker ${worker}, claimed ${relative(since)}; ${attempts(job)}`;
  if (job.cancel_requested) {
    const reason = job.cancel_reason ? ` (${job.cancel_reason})` : "";
    return {
      reasons: ["IN_PROGRESS", "CANCEL_REQUESTED"],
      said: `${said}; a cancel was requested${reason}.`,
      next: "It is CANCELED when the worker stops, or when the cancel's grace is over.",
    };
  }
  const lost = `The worker settles it, or falls silent and loses it ${relative(deadline)}.`;
  return { reasons: ["IN_PROGRESS"], said: `${said}.`, next: lost };
}

function attempts(job) {
  const policy = job.retry_policy ?? {};
  const told = [
    job.attempt ? `attempt ${job.attempt}` : "no attempt yet",
    `${job.retry_count ?? 0} of ${policy.max_retries ?? 0} retries used`,
  ];
  if (job.interruption_count) told.push(`${job.interruption_count} of ${policy.max_interruptions ?? 0} interruptions`);
  return told.join(", ");
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const firstLine = (error = {}) =>
  [error.code, (error.message ?? "").split("\n", 1)[0].slice(0, 300)].filter(Boolean).join(": ");
const gone = (job) => (job.purge_time ? `It is removed ${relative(job.purge_time)}.` : "Nothing.");
const again = (job) => `“Replay” runs it again. ${gone(job)}`;

function expiry(job) {
  if (!job.expire_time || job.attempt) return "";
  const isPast = Date.parse(job.expire_time) <= now();
  return isPast ? "" : ` It is EXPIRED if nobody has started it by then: ${relative(job.expire_time)}.`;
}
