package jobwire.example;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Descriptors.MethodDescriptor;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import io.grpc.Channel;
import io.grpc.StatusRuntimeException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.function.Function;
import jobwire.v1.*;

/**
 * What tests/polyglot drives: it makes the calls it is told on stdin, or runs the example's worker, and prints what it sees
 * as JSON, a line each.
 */
public final class Driver {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final BufferedReader IN = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private Driver() {}

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = Connection.of(arguments)) {
            for (String line = IN.readLine(); line != null; line = IN.readLine()) {
                JsonObject told = JsonParser.parseString(line).getAsJsonObject();
                if (told.has("work")) {
                    work(connection.channel(), told.getAsJsonObject("work"));
                    return;
                }
                if (told.has("watch")) {
                    watch(connection.channel(), told.get("watch"));
                    return;
                }
                JsonObject answer = new JsonObject();
                try {
                    answer.add("response", call(connection.channel(), told.get("call").getAsString(), told.get("request")));
                } catch (StatusRuntimeException refused) {
                    answer.addProperty("code", refused.getStatus().getCode().value());
                    answer.addProperty("reason", Refusals.reason(refused));
                }
                tell(answer);
            }
        }
    }

    // --- calls -------------------------------------------------------------------------------------------------------

    private static JsonElement call(Channel channel, String name, JsonElement given) throws IOException {
        var jobs = JobServiceGrpc.newBlockingStub(channel).withWaitForReady();
        var workers = WorkerServiceGrpc.newBlockingStub(channel).withWaitForReady();
        return switch (name) {
            case "CreateJob" -> unary(CreateJobRequest.newBuilder(), given, request -> jobs.createJob(request.build()));
            case "BatchCreateJobs" ->
                unary(BatchCreateJobsRequest.newBuilder(), given, request -> jobs.batchCreateJobs(request.build()));
            case "GetJob" -> unary(GetJobRequest.newBuilder(), given, request -> jobs.getJob(request.build()));
            case "UpdateJob" -> unary(UpdateJobRequest.newBuilder(), given, request -> jobs.updateJob(request.build()));
            case "BatchUpdateJobs" ->
                unary(BatchUpdateJobsRequest.newBuilder(), given, request -> jobs.batchUpdateJobs(request.build()));
            case "CancelJob" -> unary(CancelJobRequest.newBuilder(), given, request -> jobs.cancelJob(request.build()));
            case "RetryJob" -> unary(RetryJobRequest.newBuilder(), given, request -> jobs.retryJob(request.build()));
            case "RecoverStuckJobs" ->
                unary(RecoverStuckJobsRequest.newBuilder(), given, request -> jobs.recoverStuckJobs(request.build()));
            case "WaitJob" -> unary(WaitJobRequest.newBuilder(), given, request -> jobs.waitJob(request.build()));
            case "Heartbeat" -> unary(HeartbeatRequest.newBuilder(), given, request -> workers.heartbeat(request.build()));
            case "DrainWorker" ->
                unary(DrainWorkerRequest.newBuilder(), given, request -> workers.drainWorker(request.build()));
            case "ClaimJob" -> {
                ClaimJobRequest.Builder request = ClaimJobRequest.newBuilder();
                JsonFormat.parser().merge(given.toString(), request);
                JsonArray answers = new JsonArray();
                for (Iterator<ClaimJobResponse> events = jobs.claimJob(request.build()); events.hasNext(); ) {
                    answers.add(asJson(events.next()));
                }
                yield answers;
            }
            default -> throw new IllegalArgumentException(name);
        };
    }

    /** Prints what a watch brings, for as long as it lasts. */
    private static void watch(Channel channel, JsonElement given) throws IOException {
        WatchJobsRequest.Builder request = WatchJobsRequest.newBuilder();
        JsonFormat.parser().merge(given.toString(), request);
        Iterator<WatchJobsResponse> events = JobServiceGrpc.newBlockingStub(channel).watchJobs(request.build());
        while (events.hasNext()) {
            tell(asJson(events.next()));
        }
    }

    private static <B extends Message.Builder> JsonElement unary(B request, JsonElement given, Function<B, Message> call)
            throws IOException {
        JsonFormat.parser().merge(given.toString(), request);
        return asJson(call.apply(request));
    }

    private static JsonElement asJson(Message message) throws InvalidProtocolBufferException {
        return JsonParser.parseString(JsonFormat.printer().print(message));
    }

    // --- work --------------------------------------------------------------------------------------------------------

    private static void work(Channel channel, JsonObject told) throws InterruptedException {
        CountDownLatch finish = new CountDownLatch(1);
        JobWorker.Options options = new JobWorker.Options(
                told.get("id").getAsString(),
                List.of(new Gson().fromJson(told.get("queues"), String[].class)),
                told.get("concurrency").getAsInt(),
                Duration.ofMillis((long) (told.get("leaseSeconds").getAsDouble() * 1000)),
                Duration.ofMillis((long) (told.get("graceSeconds").getAsDouble() * 1000)),
                Map.of(
                        "echo", seen(run -> run.job().getPayload()),
                        "flaky", seen(Driver::flaky),
                        "doomed", seen(Driver::doomed),
                        "hold", seen(run -> {
                            run.report(0.5, "half way");
                            return hold(run, finish);
                        }),
                        "mute", seen(run -> hold(run, finish))));
        JobWorker worker = new JobWorker(channel, options, (update, reason) -> {
            String verb = update.getChangeCase().name().toLowerCase(Locale.ROOT);
            tell(event("settled", "job", update.getJobId(), "verb", verb, "reason", reason));
        });
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            if (main.isAlive()) {
                worker.stop();
                tell(event("draining"));
                Worker.join(main);
            }
        }));
        Thread finishing = new Thread(() -> {
            try { // the next line is the word to finish
                if (IN.readLine() != null) {
                    finish.countDown();
                }
            } catch (IOException ended) {
                throw new AssertionError(ended);
            }
        });
        finishing.setDaemon(true);
        finishing.start();
        try {
            worker.run();
            tell(event("ended", "reason", ""));
        } catch (StatusRuntimeException refused) {
            tell(event("ended", "reason", Refusals.reason(refused)));
        }
    }

    private static JobWorker.Handler seen(JobWorker.Handler handler) {
        return run -> {
            JsonObject started = event("started", "job", run.job().getId(), "fence", Long.toString(run.job().getFence()));
            started.addProperty("attempt", run.job().getAttempt());
            tell(started);
            return handler.handle(run);
        };
    }

    private static Payload flaky(Run run) {
        if (run.job().getAttempt() == 1) {
            throw new IllegalStateException("told to fail");
        }
        return null;
    }

    private static Payload doomed(Run run) throws PermanentException {
        throw new PermanentException("DOOMED", "told to fail for good");
    }

    private static Payload hold(Run run, CountDownLatch finish) throws InterruptedException {
        tell(event("holding", "job", run.job().getId()));
        try {
            finish.await();
            return null;
        } catch (InterruptedException stopped) {
            String cause = "lost";
            if (run.cause() instanceof Run.Canceled canceled) {
                cause = "canceled for " + canceled.reason();
            } else if (run.cause() instanceof Run.Draining) {
                cause = "draining";
            }
            tell(event("stopped", "job", run.job().getId(), "cause", cause));
            throw stopped;
        }
    }

    private static JsonObject event(String event, String... more) {
        JsonObject what = new JsonObject();
        what.addProperty("event", event);
        for (int number = 0; number < more.length; number += 2) {
            what.addProperty(more[number], more[number + 1]);
        }
        return what;
    }

    private static synchronized void tell(JsonElement what) {
        OUT.println(what);
    }
}
