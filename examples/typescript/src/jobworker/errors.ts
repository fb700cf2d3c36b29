import { ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "@jobwire/stubs/google/rpc/error_details";

/** Why jobwire refused a call, such as JOB_EXISTS; empty when it was not jobwire that did. */
export function reasonOf(error: unknown): string {
  const infos = ConnectError.from(error).findDetails(ErrorInfoSchema);
  return infos.find((info) => info.domain === "jobwire")?.reason ?? "";
}

/** For how many milliseconds the server asks its caller to wait; 0 when it does not. */
export function retryDelayOf(error: unknown): number {
  const delay = ConnectError.from(error).findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay ? Number(delay.seconds) * 1000 + delay.nanos / 1e6 : 0;
}

/** Fails a job for good: no retry can help. */
export class PermanentError extends Error {
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

/** Somebody has cancelled the job. */
export class CanceledError extends Error {
  constructor(readonly reason: string) {
    super(`canceled: ${reason}`);
  }
}

/** The lease is gone: another worker may have the job. */
export class LostError extends Error {}

/** The worker ends and its grace has passed. */
export class DrainingError extends Error {}

/** A random wait below a bound that doubles, so that a thousand workers do not come back at once. In milliseconds. */
export class Backoff {
  private bound = 0;

  next(): number {
    this.bound = Math.min(Math.max(2 * this.bound, 100), 2_000);
    return Math.random() * this.bound;
  }

  reset(): void {
    this.bound = 0;
  }
}
