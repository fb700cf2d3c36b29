package jobwire.example;

import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicReference;
import jobwire.v1.Assignment;
import jobwire.v1.CompleteJob;
import jobwire.v1.FailJob;
import jobwire.v1.Job;
import jobwire.v1.JobError;
import jobwire.v1.JobServiceGrpc;
import jobwire.v1.Payload;
import jobwire.v1.ReleaseJob;
import jobwire.v1.ReportProgress;
import jobwire.v1.UpdateJobRequest;

/** One run of one job, and the right to it. */
public final class Run {
    /** Why a handler must stop. */
    public sealed interface Cause permits Canceled, Lost, Draining {}

    /** Somebody has cancelled the job. */
    public record Canceled(String reason) implements Cause {}

    /** The lease is gone: another worker may have the job. */
    public record Lost() implements Cause {}

    /** The worker ends and its grace has passed. */
    public record Draining() implements Cause {}

    private final Assignment assignment;
    private final JobServiceGrpc.JobServiceBlockingStub jobs;
    private final FutureTask<Payload> handling;
    private final boolean isKnown;
    private final AtomicReference<Cause> cause = new AtomicReference<>();

    Run(Assignment assignment, JobWorker.Handler handler, JobServiceGrpc.JobServiceBlockingStub jobs) {
        this.assignment = assignment;
        this.jobs = jobs;
        isKnown = handler != null;
        handling = new FutureTask<>(() -> isKnown ? handler.handle(this) : null);
    }

    public Job job() {
        return assignment.getJob();
    }

    /** Null as long as nobody wants the handler to stop. */
    public Cause cause() {
        return cause.get();
    }

    /** Tells everybody how far the job is. */
    public void report(double fraction, String message) {
        jobs.updateJob(change().setProgress(ReportProgress.newBuilder().setFraction(fraction).setMessage(message)).build());
    }

    String token() {
        return assignment.getToken();
    }

    /** Interrupts the handler, and nothing else that its thread does before or after. */
    void stop(Cause why) {
        if (cause.compareAndSet(null, why)) {
            handling.cancel(true);
        }
    }

    /** Runs the handler to its end, and says what to report. */
    UpdateJobRequest handle() {
        handling.run();
        Thread.interrupted(); // what was meant for the handler must not reach the next one
        UpdateJobRequest.Builder change = change();
        try {
            Payload result = handling.get();
            if (!isKnown) { // for a worker that knows the type
                return change.setRelease(ReleaseJob.newBuilder().setDelay(Durations.ofSeconds(30))).build();
            }
            CompleteJob.Builder complete = CompleteJob.newBuilder();
            return change.setComplete(result == null ? complete : complete.setResult(result)).build();
        } catch (CancellationException stopped) { // not its fault; after a cancel this makes the job CANCELED
            return change.setRelease(ReleaseJob.getDefaultInstance()).build();
        } catch (ExecutionException failed) {
            return change.setFail(failure(failed.getCause())).build();
        } catch (InterruptedException impossible) {
            throw new AssertionError("the handler has ended", impossible);
        }
    }

    private UpdateJobRequest.Builder change() {
        return UpdateJobRequest.newBuilder().setJobId(job().getId()).setToken(token());
    }

    private static FailJob failure(Throwable error) {
        boolean isPermanent = error instanceof PermanentException;
        String code = isPermanent ? ((PermanentException) error).code() : error.getClass().getSimpleName();
        String message = String.valueOf(error.getMessage());
        return FailJob.newBuilder()
                .setError(JobError.newBuilder().setCode(code).setMessage(message))
                .setPermanent(isPermanent)
                .build();
    }
}
