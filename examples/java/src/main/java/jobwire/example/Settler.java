package jobwire.example;

import io.grpc.Channel;
import io.grpc.StatusRuntimeException;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import jobwire.v1.BatchUpdateJobsRequest;
import jobwire.v1.FailJob;
import jobwire.v1.ItemError;
import jobwire.v1.JobError;
import jobwire.v1.JobServiceGrpc;
import jobwire.v1.UpdateJobRequest;
import jobwire.v1.UpdateJobResult;

/** Sends settlements, all that wait in one call. One that is not answered is repeated: the token makes that safe. */
final class Settler {
    private static final System.Logger LOG = System.getLogger("jobwire.worker");
    private static final long CALL_TIMEOUT_SECONDS = 5;
    /** How many go in one call: with results of 256 KiB they stay below the 16 MiB of a message. */
    private static final int BATCH = 50;
    /** Refusals after which nothing more can be said about an attempt. */
    private static final Set<String> OVER = Set.of("LEASE_LOST", "ALREADY_SETTLED", "JOB_NOT_FOUND");
    private static final UpdateJobRequest END = UpdateJobRequest.getDefaultInstance();

    private final JobServiceGrpc.JobServiceBlockingStub jobs;
    private final JobWorker.Settled settled;
    private final BiConsumer<String, String> drop;
    private final BlockingQueue<UpdateJobRequest> waiting = new LinkedBlockingQueue<>();
    private final Thread thread = new Thread(this::settleOn, "jobwire-settler");

    Settler(Channel channel, JobWorker.Settled settled, BiConsumer<String, String> drop) {
        jobs = JobServiceGrpc.newBlockingStub(channel);
        this.settled = settled;
        this.drop = drop;
        thread.setDaemon(true);
    }

    void start() {
        thread.start();
    }

    void settle(UpdateJobRequest update) {
        waiting.add(update);
    }

    /** Returns when all is answered. Nothing may be settled afterwards. */
    void finish() throws InterruptedException {
        waiting.add(END);
        thread.join();
    }

    private void settleOn() {
        boolean isLast = false;
        List<UpdateJobRequest> batch = new ArrayList<>();
        try {
            while (!isLast || !batch.isEmpty()) {
                if (batch.isEmpty()) {
                    batch.add(waiting.take());
                }
                waiting.drainTo(batch, BATCH - batch.size());
                isLast |= batch.remove(END);
                batch = batch.isEmpty() ? batch : send(batch);
            }
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    /** Repeats the call until it is answered. Returns what to send in place of what was refused for its content. */
    private List<UpdateJobRequest> send(List<UpdateJobRequest> batch) throws InterruptedException {
        BatchUpdateJobsRequest request = BatchUpdateJobsRequest.newBuilder().addAllRequests(batch).setBrief(true).build();
        Backoff backoff = new Backoff();
        while (true) {
            try {
                List<UpdateJobResult> results = jobs.withDeadlineAfter(CALL_TIMEOUT_SECONDS, TimeUnit.SECONDS)
                        .batchUpdateJobs(request)
                        .getResultsList();
                List<UpdateJobRequest> again = new ArrayList<>();
                for (int number = 0; number < results.size(); number++) {
                    answered(batch.get(number), results.get(number), again);
                }
                return again;
            } catch (StatusRuntimeException unanswered) {
                LOG.log(Level.WARNING, "settlements are not answered, trying again: {0}", unanswered.getMessage());
                Thread.sleep(backoff.next().plus(Refusals.retryDelay(unanswered)).toMillis());
            }
        }
    }

    private void answered(UpdateJobRequest update, UpdateJobResult result, List<UpdateJobRequest> again) {
        ItemError refused = result.getError();
        if (result.hasError() && update.hasComplete() && !OVER.contains(refused.getReason())) {
            // Such as a result that is TOO_LARGE: the job must not stay silent for that.
            JobError error = JobError.newBuilder().setCode(refused.getReason()).setMessage(refused.getMessage()).build();
            again.add(update.toBuilder().setFail(FailJob.newBuilder().setError(error).setPermanent(true)).build());
            return;
        }
        settled.accept(update, refused.getReason());
        drop.accept(update.getJobId(), update.getToken());
    }
}
