// A producer: npm run producer [HOST:PORT]. Makes a job for the worker beside it, and waits for what comes of it.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type Job, JobState } from "@jobwire/stubs/jobwire/v1/job";
import { JobService } from "@jobwire/stubs/jobwire/v1/job_service";

import { Backoff, reasonOf } from "./jobworker/errors.js";

const jobs = createClient(JobService, createGrpcTransport({ baseUrl: `http://${process.argv[2] ?? "127.0.0.1:7272"}` }));

/** Repeats a call whose outcome is unknown. For those that are safe to repeat: creates with an id or a request id, reads. */
async function repeat<T>(call: () => Promise<T>, patience: AbortSignal): Promise<T> {
  const backoff = new Backoff();
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const isUnknown = [Code.Unavailable, Code.DeadlineExceeded].includes(ConnectError.from(error).code);
      if (!isUnknown || patience.aborted) throw error;
      await sleep(backoff.next());
    }
  }
}

/** Answers the job once it has ended. */
async function wait(jobId: string, patience: AbortSignal): Promise<Job> {
  for (;;) {
    const answer = await repeat(() => jobs.waitJob({ jobId, timeout: { seconds: 30n } }, { signal: patience }), patience);
    if (answer.ended) return answer.job!;
  }
}

try {
  const patience = AbortSignal.timeout(60_000);
  const request = {
    requestId: randomUUID(), // makes it safe to send this again when no answer came
    job: {
      type: "hello",
      payload: { contentType: "text/plain", body: { case: "text", value: "world" } },
      labels: { from: "typescript" },
    },
  } as const;
  const { job: made } = await repeat(() => jobs.createJob(request), patience);
  console.log(`job ${made!.id} waits in queue ${made!.queue} for a worker`);
  const job = await wait(made!.id, patience);
  if (job.state !== JobState.COMPLETED) throw new Error(`it ended ${JobState[job.state]}: ${job.error?.message}`);
  console.log(`${JobState[job.state]} in attempt ${job.attempt}: ${job.result?.body.value}`);
} catch (error) {
  console.error(`${error} (${reasonOf(error)})`);
  process.exitCode = 1;
}
