// What tests/polyglot drives: it makes the calls it is told on stdin, or runs the example's worker, and prints what it sees
// as JSON, a line each.

import { once } from "node:events";
import { createInterface } from "node:readline";

import { type DescMessage, fromJson, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { JobService, WatchJobsRequestSchema, WatchJobsResponseSchema } from "@jobwire/stubs/jobwire/v1/job_service";
import { WorkerService } from "@jobwire/stubs/jobwire/v1/worker_service";

import { CanceledError, DrainingError, PermanentError, reasonOf } from "./jobworker/errors.js";
import { type Handler, type Options, type Run, Worker } from "./jobworker/worker.js";

type Method = { input: DescMessage; output: DescMessage; localName: string; methodKind: string };
type Calls = Record<string, (request: Message) => Promise<Message> | AsyncIterable<Message>>;

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}` });

function tell(what: object): void {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

// --- calls -----------------------------------------------------------------------------------------------------------

async function call(name: string, given: JsonValue): Promise<JsonValue> {
  const service = ["Heartbeat", "DrainWorker"].includes(name) ? WorkerService : JobService;
  const method: Method = service.methods.find((each) => each.name === name)!;
  const answer = (createClient(service, transport) as unknown as Calls)[method.localName]!(fromJson(method.input, given));
  if (method.methodKind === "unary") return toJson(method.output, await (answer as Promise<Message>));
  const answers = [];
  for await (const each of answer as AsyncIterable<Message>) answers.push(toJson(method.output, each));
  return answers;
}

/** Prints what a watch brings, for as long as it lasts. */
async function watch(given: JsonValue): Promise<void> {
  const request = fromJson(WatchJobsRequestSchema, given);
  for await (const event of createClient(JobService, transport).watchJobs(request)) {
    tell(toJson(WatchJobsResponseSchema, event) as object);
  }
}

// --- work ------------------------------------------------------------------------------------------------------------

async function work(told: Omit<Options, "handlers">, finish: Promise<unknown>): Promise<void> {
  const stopping = new AbortController();
  process.on("SIGTERM", () => {
    stopping.abort();
    tell({ event: "draining" });
  });
  const seen =
    (handler: Handler): Handler =>
    (run) => {
      // Fences as in the JSON of protobuf: a bigint is none of JSON's numbers.
      tell({ event: "started", job: run.job.id, attempt: run.job.attempt, fence: String(run.job.fence) });
      return handler(run);
    };

  const worker = new Worker(transport, {
    ...told,
    handlers: {
      echo: seen(async ({ job }) => job.payload),
      flaky: seen(async ({ job }) => {
        if (job.attempt === 1) throw new Error("told to fail");
      }),
      doomed: seen(async () => {
        throw new PermanentError("DOOMED", "told to fail for good");
      }),
      hold: seen(async (run) => {
        await run.report(0.5, "half way");
        await hold(run, finish);
      }),
      mute: seen((run) => hold(run, finish)),
    },
    onSettled: (job, change, reason) => tell({ event: "settled", job: job.id, verb: change.case, reason }),
  });
  try {
    await worker.run(stopping.signal);
    tell({ event: "ended", reason: "" });
  } catch (error) {
    tell({ event: "ended", reason: reasonOf(error) });
  }
}

async function hold({ job, signal }: Run, finish: Promise<unknown>): Promise<void> {
  tell({ event: "holding", job: job.id });
  await Promise.race([finish, signal.aborted || once(signal, "abort")]);
  if (!signal.aborted) return;
  let cause = "lost";
  if (signal.reason instanceof CanceledError) cause = `canceled for ${signal.reason.reason}`;
  if (signal.reason instanceof DrainingError) cause = "draining";
  tell({ event: "stopped", job: job.id, cause });
  throw signal.reason;
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
for (let line = await lines.next(); !line.done; line = await lines.next()) {
  const told = JSON.parse(line.value);
  if (told.work) {
    await work(told.work, lines.next()); // the next line is the word to finish
    process.exit();
  }
  if (told.watch) await watch(told.watch);
  try {
    tell({ response: await call(told.call, told.request) });
  } catch (error) {
    tell({ code: ConnectError.from(error).code, reason: reasonOf(error) });
  }
}
