package jobwire.example;

import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import jobwire.v1.Assignment;
import jobwire.v1.ClaimJobRequest;
import jobwire.v1.ClaimJobResponse;
import jobwire.v1.JobServiceGrpc;
import jobwire.v1.Payload;
import jobwire.v1.UpdateJobRequest;
import jobwire.v1.WorkerIdentity;

/**
 * What every worker of jobwire must do, with nothing but the generated stubs: it claims over one stream, beats, settles in
 * batches, stops what was cancelled or lost, reconnects, and drains. Copy it.
 */
public final class JobWorker {
    /** Runs one job. Interrupted when it must stop; {@link Run#cause} then says why. */
    @FunctionalInterface
    public interface Handler {
        /** Completes the job with what it returns, null included. What it throws fails it, see {@link PermanentException}. */
        Payload handle(Run run) throws Exception;
    }

    /** The answer to a settlement; the reason is empty when it was accepted. */
    @FunctionalInterface
    public interface Settled {
        void accept(UpdateJobRequest update, String reason);
    }

    /**
     * @param id unique among running processes
     * @param concurrency at most 1,000: one heartbeat carries no more
     * @param grace for handlers to finish in, once the worker is to stop
     */
    public record Options(
            String id, List<String> queues, int concurrency, Duration lease, Duration grace, Map<String, Handler> handlers) {}

    private static final System.Logger LOG = System.getLogger("jobwire.worker");
    /** How long a stream may say nothing, three keepalives, until it counts as dead. */
    private static final Duration SILENCE = Duration.ofSeconds(45);
    /** What no reconnecting can mend. */
    private static final Set<String> FINAL = Set.of("SUPERSEDED", "INVALID_FIELD", "UNAUTHENTICATED", "PERMISSION_DENIED");

    private final Options options;
    private final JobServiceGrpc.JobServiceBlockingStub jobs;
    private final WorkerIdentity identity;
    /** By job id, until the settlement is answered. */
    private final Map<String, Run> held = new ConcurrentHashMap<>();
    private final ExecutorService handling;
    private final ScheduledExecutorService clock = Executors.newSingleThreadScheduledExecutor();
    private final Heartbeat heartbeat;
    private final Settler settler;
    private final CountDownLatch stopping = new CountDownLatch(1);
    private volatile Context.CancellableContext stream;
    private long session;

    public JobWorker(Channel channel, Options options, Settled settled) {
        this.options = options;
        jobs = JobServiceGrpc.newBlockingStub(channel);
        identity = WorkerIdentity.newBuilder()
                .setId(options.id())
                .setPid((int) ProcessHandle.current().pid())
                .setRuntime("java/" + Runtime.version())
                .build();
        handling = Executors.newFixedThreadPool(options.concurrency());
        heartbeat = new Heartbeat(channel, identity, options.lease(), held.values(), this::stop);
        settler = new Settler(channel, settled, this::drop);
    }

    /**
     * Works until {@link #stop}, then drains: it claims no more, gives handlers their grace, and releases the rest. Throws
     * what no reconnecting can mend, such as SUPERSEDED.
     */
    public void run() throws InterruptedException {
        heartbeat.start();
        settler.start();
        try {
            claim();
        } finally {
            // Beats and settlements outlive the stream: until the last job is settled, its lease must be kept.
            handling.shutdown();
            if (!handling.awaitTermination(options.grace().toMillis(), TimeUnit.MILLISECONDS)) {
                held.values().forEach(run -> run.stop(new Run.Draining()));
                handling.awaitTermination(Long.MAX_VALUE, TimeUnit.NANOSECONDS);
            }
            settler.finish();
            heartbeat.stop();
            clock.shutdownNow();
        }
    }

    /** Begins the drain. From any thread. */
    public void stop() {
        if (stopping.getCount() == 0) {
            return;
        }
        stopping.countDown();
        // What has just come is acknowledged before the stream is cancelled: else the server takes it back.
        heartbeat.beat();
        if (stream != null) {
            stream.cancel(null);
        }
    }

    /** Keeps one claim stream open until the worker is to stop. */
    private void claim() throws InterruptedException {
        Backoff backoff = new Backoff();
        while (stopping.getCount() > 0) {
            Duration away = Duration.ZERO;
            String cause = "the stream has ended";
            try {
                away = listen(backoff);
            } catch (StatusRuntimeException refused) {
                if (FINAL.contains(Refusals.reason(refused))) {
                    throw refused;
                }
                away = Refusals.retryDelay(refused);
                cause = refused.getMessage();
            }
            if (stopping.getCount() > 0) {
                Duration wait = away.plus(backoff.next());
                LOG.log(Level.WARNING, "worker {0} has no stream, trying again in {1}: {2}", options.id(), wait, cause);
                stopping.await(wait.toMillis(), TimeUnit.MILLISECONDS);
            }
        }
    }

    /** Takes what one stream brings until it ends. Answers how long the server wants us to stay away. */
    private Duration listen(Backoff backoff) {
        session = Math.max(session + 1, System.currentTimeMillis() * 1000); // rises: the server keeps the newest
        ClaimJobRequest request = ClaimJobRequest.newBuilder()
                .setWorker(identity.toBuilder().setSession(session))
                .addAllQueues(options.queues())
                .setMaxInFlight(options.concurrency())
                .setLeaseDuration(Durations.of(options.lease()))
                .build();
        Duration reconnectAfter = Duration.ZERO;
        try (Context.CancellableContext streaming = Context.current().withCancellation()) {
            stream = streaming;
            if (stopping.getCount() == 0) {
                return reconnectAfter;
            }
            Context before = streaming.attach();
            ScheduledFuture<?> alarm = alarm(streaming);
            try {
                Iterator<ClaimJobResponse> events = jobs.claimJob(request);
                while (events.hasNext()) {
                    ClaimJobResponse event = events.next();
                    alarm.cancel(false);
                    alarm = alarm(streaming);
                    backoff.reset();
                    if (event.getDrain().hasReconnectAfter()) {
                        reconnectAfter = Durations.of(event.getDrain().getReconnectAfter());
                    }
                    take(event);
                }
            } finally {
                alarm.cancel(false);
                streaming.detach(before);
            }
        }
        return reconnectAfter;
    }

    private ScheduledFuture<?> alarm(Context.CancellableContext streaming) {
        return clock.schedule(() -> streaming.cancel(null), SILENCE.toMillis(), TimeUnit.MILLISECONDS);
    }

    private void take(ClaimJobResponse event) {
        switch (event.getEventCase()) {
            case JOBS -> {
                if (stopping.getCount() > 0) { // draining: unacknowledged, they go back with the end of the stream
                    event.getJobs().getAssignmentsList().forEach(this::start);
                    heartbeat.beatSoon();
                }
            }
            case CANCEL -> stop(event.getCancel().getJobId(), event.getCancel().getFence(),
                    new Run.Canceled(event.getCancel().getReason()));
            case LOST -> stop(event.getLost().getJobId(), event.getLost().getFence(), new Run.Lost());
            default -> { } // a keepalive, or something newer than this worker
        }
    }

    /** Of two runs of one job the newer one wins: the older has lost its lease. */
    private void start(Assignment assignment) {
        JobWorker.Handler handler = options.handlers().get(assignment.getJob().getType());
        Run run = new Run(assignment, handler, jobs);
        Run older = held.put(run.job().getId(), run);
        if (older != null) {
            older.stop(new Run.Lost());
        }
        handling.execute(() -> {
            UpdateJobRequest settlement = run.handle();
            if (run.cause() instanceof Run.Lost) {
                drop(run.job().getId(), run.token()); // nothing to report: whoever has the lease now will
            } else {
                settler.settle(settlement);
            }
        });
    }

    /** A word about an older lease is not for us. */
    private void stop(String id, long fence, Run.Cause cause) {
        Run run = held.get(id);
        if (run != null && run.job().getFence() == fence) {
            run.stop(cause);
        }
    }

    private void drop(String id, String token) {
        held.computeIfPresent(id, (key, run) -> run.token().equals(token) ? null : run);
    }
}
