import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { WorkerDirective } from "@jobwire/stubs/jobwire/v1/worker";
import { LeaseState, WorkerService } from "@jobwire/stubs/jobwire/v1/worker_service";

import { Backoff, CanceledError, LostError } from "./errors.js";
import type { Held } from "./worker.js";

const CALL_TIMEOUT = 5_000;

/** Keeps leases: whatever handlers do, as long as they leave the event loop its turns. */
export class Heartbeat {
  private readonly workers: Client<typeof WorkerService>;
  private readonly interval: number;
  private readonly backoff = new Backoff();
  private timer: NodeJS.Timeout | undefined;
  private hasEnded = false;

  constructor(
    transport: Transport,
    private readonly identity: { id: string },
    leaseSeconds: number,
    private readonly held: ReadonlyMap<string, Held>,
    private readonly terminate: () => void,
  ) {
    this.workers = createClient(WorkerService, transport);
    this.interval = (leaseSeconds * 1000) / 3;
  }

  start(): void {
    this.wait(this.interval);
  }

  end(): void {
    this.hasEnded = true;
    clearTimeout(this.timer);
  }

  /** For what has just come, which acknowledges it. */
  async acknowledge(): Promise<void> {
    const isNew = ({ isAcknowledged }: Held) => !isAcknowledged;
    await this.renew([...this.held.values()].filter(isNew)).catch(() => this.beat());
  }

  /** For everything: every third of the lease, sooner while nobody answers. */
  async beat(): Promise<void> {
    try {
      await this.renew([...this.held.values()]);
      this.backoff.reset();
      this.wait(this.interval);
    } catch (error) {
      console.error(`a heartbeat was not answered: ${error}`);
      this.wait(Math.min(this.backoff.next(), this.interval));
    }
  }

  private wait(milliseconds: number): void {
    clearTimeout(this.timer);
    if (!this.hasEnded) this.timer = setTimeout(() => void this.beat(), milliseconds);
  }

  private async renew(held: Held[]): Promise<void> {
    const leases = held.map(({ job, assignment }) => ({ jobId: job.id, token: assignment.token }));
    const answer = await this.workers.heartbeat({ worker: this.identity, leases }, { timeoutMs: CALL_TIMEOUT });
    for (const each of held) each.isAcknowledged = true;
    answer.leases.forEach((lease, number) => {
      // LOST is also what was settled meanwhile: then the handler has ended, and nobody is stopped.
      if (lease.state === LeaseState.LOST) held[number]!.stop.abort(new LostError());
      if (lease.state === LeaseState.CANCEL_REQUESTED) held[number]!.stop.abort(new CanceledError(lease.cancelReason));
    });
    if (answer.directive === WorkerDirective.TERMINATE) this.terminate();
  }
}
