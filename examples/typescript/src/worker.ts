// A worker: npm run worker [HOST:PORT]. Ctrl-C or SIGTERM lets it finish what it holds.

import { randomUUID } from "node:crypto";

import { createGrpcTransport } from "@connectrpc/connect-node";

import { PermanentError } from "./jobworker/errors.js";
import { type Run, Worker } from "./jobworker/worker.js";

async function hello({ job }: Run) {
  const name = job.payload?.body.case === "text" ? job.payload.body.value : "";
  if (name === "") throw new PermanentError("NO_NAME", "nobody to greet");
  console.log(`hello, ${name}`);
  return { body: { case: "text", value: `hello, ${name}` } } as const;
}

const stopping = new AbortController();
process.once("SIGTERM", () => stopping.abort());
process.once("SIGINT", () => stopping.abort());

const worker = new Worker(createGrpcTransport({ baseUrl: `http://${process.argv[2] ?? "127.0.0.1:7272"}` }), {
  id: `node-${process.pid}-${randomUUID()}`,
  queues: ["default"],
  concurrency: 4,
  leaseSeconds: 30,
  graceSeconds: 20,
  handlers: { hello },
});
await worker.run(stopping.signal);
