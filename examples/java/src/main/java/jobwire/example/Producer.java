package jobwire.example;

import io.grpc.StatusRuntimeException;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import jobwire.v1.CreateJobRequest;
import jobwire.v1.Job;
import jobwire.v1.JobServiceGrpc;
import jobwire.v1.JobServiceGrpc.JobServiceBlockingStub;
import jobwire.v1.JobState;
import jobwire.v1.Payload;
import jobwire.v1.WaitJobRequest;
import jobwire.v1.WaitJobResponse;

/** A producer: makes a job for the worker beside it, and waits for what comes of it. */
public final class Producer {
    private Producer() {}

    public static void main(String[] arguments) throws InterruptedException {
        try (Connection connection = Connection.of(arguments)) {
            JobServiceBlockingStub jobs = JobServiceGrpc.newBlockingStub(connection.channel())
                    .withWaitForReady() // a server that is being replaced is waited for, for as long as the call may take
                    .withDeadlineAfter(1, TimeUnit.MINUTES);
            Job made = jobs.createJob(CreateJobRequest.newBuilder()
                            .setRequestId(UUID.randomUUID().toString()) // makes it safe to send this again
                            .setJob(Job.newBuilder()
                                    .setType("hello")
                                    .setPayload(Payload.newBuilder().setContentType("text/plain").setText("world"))
                                    .putLabels("from", "java"))
                            .build())
                    .getJob();
            System.out.printf("job %s waits in queue %s for a worker%n", made.getId(), made.getQueue());

            Job job = await(jobs, made.getId());
            if (job.getState() != JobState.JOB_STATE_COMPLETED) {
                System.err.printf("it ended %s: %s%n", job.getState(), job.getError().getMessage());
                System.exit(1);
            }
            System.out.printf("%s in attempt %d: %s%n", job.getState(), job.getAttempt(), job.getResult().getText());
        } catch (StatusRuntimeException refused) {
            System.err.printf("%s (%s)%n", refused.getMessage(), Refusals.reason(refused));
            System.exit(1);
        }
    }

    /** The job once it has ended. */
    private static Job await(JobServiceBlockingStub jobs, String id) {
        WaitJobRequest request = WaitJobRequest.newBuilder().setJobId(id).setTimeout(Durations.ofSeconds(30)).build();
        while (true) {
            WaitJobResponse answer = jobs.waitJob(request);
            if (answer.getEnded()) {
                return answer.getJob();
            }
        }
    }
}
