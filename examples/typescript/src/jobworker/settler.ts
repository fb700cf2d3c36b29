import { setTimeout as sleep } from "node:timers/promises";

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type { ItemError } from "@jobwire/stubs/jobwire/v1/errors";
import type { JobService, UpdateJobRequestSchema, UpdateJobResult } from "@jobwire/stubs/jobwire/v1/job_service";

import { Backoff, retryDelayOf } from "./errors.js";

type Update = MessageInitShape<typeof UpdateJobRequestSchema>;
export type Change = Exclude<NonNullable<Update["change"]>, { case: undefined }>;

const CALL_TIMEOUT = 5_000;
/** How many settlements go in one call: with results of 256 KiB they stay below the 16 MiB of a message. */
const BATCH = 50;

/** Sends settlements, all that wait in one call. One that is not answered is repeated: the token makes that safe. */
export class Settler {
  private waiting: { update: Update; answer: (refused: ItemError | undefined) => void }[] = [];
  private isSending = false;

  constructor(private readonly jobs: Client<typeof JobService>) {}

  /** Answers why it was refused, or nothing. */
  settle(jobId: string, token: string, change: Change): Promise<ItemError | undefined> {
    return new Promise((answer) => {
      this.waiting.push({ update: { jobId, token, change }, answer });
      if (!this.isSending) void this.sendAll();
    });
  }

  private async sendAll(): Promise<void> {
    this.isSending = true;
    while (this.waiting.length > 0) {
      const batch = this.waiting.splice(0, BATCH);
      const results = await this.send(batch.map(({ update }) => update));
      batch.forEach(({ answer }, number) => {
        const outcome = results[number]!.outcome;
        answer(outcome.case === "error" ? outcome.value : undefined);
      });
    }
    this.isSending = false;
  }

  private async send(requests: Update[]): Promise<UpdateJobResult[]> {
    const backoff = new Backoff();
    for (;;) {
      try {
        return (await this.jobs.batchUpdateJobs({ requests, brief: true }, { timeoutMs: CALL_TIMEOUT })).results;
      } catch (error) {
        const wait = backoff.next() + retryDelayOf(error);
        console.error(`settlements are not answered, trying again in ${Math.round(wait)} ms: ${error}`);
        await sleep(wait);
      }
    }
  }
}
