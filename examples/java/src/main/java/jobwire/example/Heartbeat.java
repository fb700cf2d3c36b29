package jobwire.example;

import io.grpc.Channel;
import io.grpc.StatusRuntimeException;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import jobwire.v1.HeartbeatRequest;
import jobwire.v1.HeartbeatResponse;
import jobwire.v1.LeaseBeat;
import jobwire.v1.LeaseStatus;
import jobwire.v1.WorkerDirective;
import jobwire.v1.WorkerIdentity;
import jobwire.v1.WorkerServiceGrpc;

/** Keeps leases, in a thread of its own: a busy handler cannot hold it up. */
final class Heartbeat {
    private static final System.Logger LOG = System.getLogger("jobwire.worker");
    private static final long CALL_TIMEOUT_SECONDS = 5;

    private final WorkerServiceGrpc.WorkerServiceBlockingStub workers;
    private final WorkerIdentity identity;
    private final Duration interval;
    private final Collection<Run> held;
    private final Runnable terminate;
    private final Semaphore arrived = new Semaphore(0);
    private final Thread thread = new Thread(this::beatOn, "jobwire-heartbeat");
    private volatile boolean hasEnded;

    Heartbeat(Channel channel, WorkerIdentity identity, Duration lease, Collection<Run> held, Runnable terminate) {
        workers = WorkerServiceGrpc.newBlockingStub(channel);
        this.identity = identity;
        interval = lease.dividedBy(3);
        this.held = held;
        this.terminate = terminate;
        thread.setDaemon(true);
    }

    void start() {
        thread.start();
    }

    void stop() {
        hasEnded = true;
        arrived.release();
    }

    /** Acknowledges what has just come. */
    void beatSoon() {
        arrived.release();
    }

    private void beatOn() {
        Backoff backoff = new Backoff();
        Duration wait = interval;
        while (!hasEnded) {
            try {
                arrived.tryAcquire(wait.toMillis(), TimeUnit.MILLISECONDS);
                arrived.drainPermits();
            } catch (InterruptedException ended) {
                return;
            }
            if (beat()) {
                backoff.reset();
                wait = interval;
            } else {
                Duration sooner = backoff.next();
                wait = sooner.compareTo(interval) < 0 ? sooner : interval;
            }
        }
    }

    /** Renews every lease that is held, and stops the handlers of those that must not go on. True: it was answered. */
    boolean beat() {
        List<Run> runs = List.copyOf(held);
        HeartbeatRequest.Builder request = HeartbeatRequest.newBuilder().setWorker(identity);
        for (Run run : runs) {
            request.addLeases(LeaseBeat.newBuilder().setJobId(run.job().getId()).setToken(run.token()));
        }
        HeartbeatResponse answer;
        try {
            answer = workers.withDeadlineAfter(CALL_TIMEOUT_SECONDS, TimeUnit.SECONDS).heartbeat(request.build());
        } catch (StatusRuntimeException unanswered) {
            LOG.log(Level.WARNING, "a heartbeat was not answered: {0}", unanswered.getMessage());
            return false;
        }
        for (int number = 0; number < runs.size(); number++) {
            LeaseStatus lease = answer.getLeases(number);
            switch (lease.getState()) {
                // LOST is also what was settled meanwhile: then the handler has ended, and nobody is stopped.
                case LEASE_STATE_LOST -> runs.get(number).stop(new Run.Lost());
                case LEASE_STATE_CANCEL_REQUESTED -> runs.get(number).stop(new Run.Canceled(lease.getCancelReason()));
                default -> { }
            }
        }
        if (answer.getDirective() == WorkerDirective.WORKER_DIRECTIVE_TERMINATE) {
            terminate.run();
        }
        return true;
    }
}
