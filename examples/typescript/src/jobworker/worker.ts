// What every worker of jobwire must do, with nothing but the generated stubs: it claims over one stream, beats, settles in
// batches, stops what was cancelled or lost, reconnects, and drains. Copy the folder.

import { setTimeout as sleep } from "node:timers/promises";
import { hostname } from "node:os";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import type { Job, PayloadSchema } from "@jobwire/stubs/jobwire/v1/job";
import { type Assignment, type ClaimJobResponse, JobService } from "@jobwire/stubs/jobwire/v1/job_service";

import { Backoff, CanceledError, DrainingError, LostError, PermanentError, reasonOf, retryDelayOf } from "./errors.js";
import { Heartbeat } from "./heartbeat.js";
import { type Change, Settler } from "./settler.js";

/** Milliseconds that a stream may say nothing, three keepalives, until it counts as dead. */
const SILENCE = 45_000;
/** What no reconnecting can mend. */
const FINAL = new Set(["SUPERSEDED", "INVALID_FIELD", "UNAUTHENTICATED", "PERMISSION_DENIED"]);

/** One run of one job. */
export interface Run {
  readonly job: Job;
  /** Aborted when the handler must stop; its reason is a CanceledError, a LostError or a DrainingError. */
  readonly signal: AbortSignal;
  /** Tells everybody how far the job is. */
  report(fraction: number, message: string): Promise<void>;
}

export type Result = MessageInitShape<typeof PayloadSchema> | void;

/** What it answers completes the job; what it throws fails it, a PermanentError without a retry. A handler that keeps the
 * event loop busy for longer than a lease loses it: long computations belong in a worker thread. */
export type Handler = (run: Run) => Promise<Result>;

export interface Options {
  /** Unique among running processes. */
  id: string;
  queues: string[];
  /** At most 1,000: one heartbeat carries no more. */
  concurrency: number;
  leaseSeconds: number;
  /** For handlers to finish in, once the worker is to stop. */
  graceSeconds: number;
  handlers: Record<string, Handler>;
  /** The server's answer to a settlement; the reason is empty when it was accepted. */
  onSettled?: (job: Job, change: Change, reason: string) => void;
}

/** What a worker holds, until the settlement is answered. */
export interface Held {
  readonly assignment: Assignment;
  readonly job: Job;
  readonly stop: AbortController;
  isAcknowledged: boolean;
}

export class Worker {
  private readonly jobs: Client<typeof JobService>;
  private readonly identity;
  private readonly held = new Map<string, Held>();
  private readonly runs = new Set<Promise<void>>();
  private readonly heartbeat: Heartbeat;
  private readonly settler: Settler;
  private readonly quit = new AbortController();
  private session = 0n;

  constructor(transport: Transport, private readonly options: Options) {
    this.jobs = createClient(JobService, transport);
    this.identity = { id: options.id, host: hostname(), pid: process.pid, runtime: `node/${process.versions.node}` };
    this.settler = new Settler(this.jobs);
    this.heartbeat = new Heartbeat(transport, this.identity, options.leaseSeconds, this.held, () => this.quit.abort());
  }

  /** Works until the signal is aborted, then drains: it claims no more, gives handlers their grace, and releases the rest.
   * Throws what no reconnecting can mend, such as SUPERSEDED. */
  async run(signal: AbortSignal): Promise<void> {
    const stopping = AbortSignal.any([signal, this.quit.signal]);
    this.heartbeat.start();
    try {
      await this.claim(stopping);
    } finally {
      // Beats and settlements outlive the stream: until the last job is settled, its lease must be kept.
      const hurry = setTimeout(() => {
        for (const { stop } of this.held.values()) stop.abort(new DrainingError());
      }, this.options.graceSeconds * 1000);
      await Promise.all(this.runs);
      clearTimeout(hurry);
      this.heartbeat.end();
    }
  }

  /** Keeps one claim stream open until the worker is to stop. */
  private async claim(stopping: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    while (!stopping.aborted) {
      let wait = 0;
      let cause: unknown = "the stream has ended";
      try {
        wait = await this.listen(stopping, backoff);
      } catch (error) {
        if (FINAL.has(reasonOf(error))) throw error;
        wait = retryDelayOf(error);
        cause = error;
      }
      if (stopping.aborted) return;
      wait += backoff.next();
      console.error(`worker ${this.options.id} has no stream, trying again in ${Math.round(wait)} ms: ${cause}`);
      await sleep(wait, undefined, { signal: stopping }).catch(() => undefined);
    }
  }

  /** Takes what one stream brings until it ends. Answers for how many milliseconds the server wants us to stay away. */
  private async listen(stopping: AbortSignal, backoff: Backoff): Promise<number> {
    const hangUp = new AbortController();
    const alarm = setTimeout(() => hangUp.abort(), SILENCE);
    // What has just come is acknowledged before the stream is cancelled: else the server takes it back.
    const drain = () => void this.heartbeat.beat().finally(() => hangUp.abort());
    stopping.addEventListener("abort", drain, { once: true });
    // Rises from stream to stream: the server keeps the newest.
    const now = BigInt(Date.now()) * 1000n;
    this.session = now > this.session ? now : this.session + 1n;
    let reconnectAfter = 0;
    try {
      const stream = this.jobs.claimJob(
        {
          worker: { ...this.identity, session: this.session },
          queues: this.options.queues,
          maxInFlight: this.options.concurrency,
          leaseDuration: seconds(this.options.leaseSeconds),
        },
        { signal: hangUp.signal },
      );
      for await (const { event } of stream) {
        alarm.refresh();
        backoff.reset();
        if (event.case === "drain" && event.value.reconnectAfter) {
          reconnectAfter = Number(event.value.reconnectAfter.seconds) * 1000 + event.value.reconnectAfter.nanos / 1e6;
        }
        if (event.case !== "jobs" || !stopping.aborted) this.take(event);
      }
    } finally {
      clearTimeout(alarm);
      stopping.removeEventListener("abort", drain);
    }
    return reconnectAfter;
  }

  private take(event: ClaimJobResponse["event"]): void {
    switch (event.case) {
      case "jobs":
        for (const assignment of event.value.assignments) this.start(assignment);
        void this.heartbeat.acknowledge();
        break;
      case "cancel":
        this.stop(event.value.jobId, event.value.fence, new CanceledError(event.value.reason));
        break;
      case "lost":
        this.stop(event.value.jobId, event.value.fence, new LostError());
        break;
    }
  }

  /** Of two runs of one job the newer one wins: the older has lost its lease. */
  private start(assignment: Assignment): void {
    const job = assignment.job!;
    this.held.get(job.id)?.stop.abort(new LostError());
    const held = { assignment, job, stop: new AbortController(), isAcknowledged: false };
    this.held.set(job.id, held);
    const run = this.execute(held).finally(() => {
      this.runs.delete(run);
      if (this.held.get(job.id) === held) this.held.delete(job.id);
    });
    this.runs.add(run);
  }

  /** A word about an older lease is not for us. */
  private stop(id: string, fence: bigint, reason: Error): void {
    const held = this.held.get(id);
    if (held?.assignment.fence === fence) held.stop.abort(reason);
  }

  /** From the start of the handler to the answer to its settlement. */
  private async execute(held: Held): Promise<void> {
    const { job, assignment, stop } = held;
    let change = await this.outcome(held);
    if (stop.signal.reason instanceof LostError) return; // nothing to report: whoever has the lease now will
    let refused = await this.settler.settle(job.id, assignment.token, change);
    if (refused && change.case === "complete" && !["LEASE_LOST", "ALREADY_SETTLED", "JOB_NOT_FOUND"].includes(refused.reason)) {
      // Such as a result that is TOO_LARGE: the job must not stay silent for that.
      change = failure(refused.reason, refused.message, true);
      refused = await this.settler.settle(job.id, assignment.token, change);
    }
    this.options.onSettled?.(job, change, refused?.reason ?? "");
  }

  private async outcome({ job, assignment, stop }: Held): Promise<Change> {
    const handler = this.options.handlers[job.type];
    if (!handler) return { case: "release", value: { delay: seconds(30) } }; // for a worker that knows the type
    const report = async (fraction: number, message: string) => {
      const value = { fraction, message };
      await this.jobs.updateJob({ jobId: job.id, token: assignment.token, change: { case: "progress", value } });
    };
    try {
      return { case: "complete", value: { result: (await handler({ job, signal: stop.signal, report })) ?? undefined } };
    } catch (error) {
      if (error instanceof PermanentError) return failure(error.code, error.message, true);
      // Stopped, and not its fault: after a cancel this makes the job CANCELED.
      if (stop.signal.aborted) return { case: "release", value: {} };
      return error instanceof Error ? failure(error.name, error.message, false) : failure("Error", String(error), false);
    }
  }
}

function failure(code: string, message: string, permanent: boolean): Change {
  return { case: "fail", value: { error: { code, message }, permanent } };
}

function seconds(value: number): { seconds: bigint; nanos: number } {
  const whole = Math.floor(value);
  return { seconds: BigInt(whole), nanos: Math.round((value - whole) * 1e9) };
}
