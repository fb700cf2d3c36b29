package jobwire.example;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import jobwire.v1.Payload;

/** A worker. Ctrl-C or SIGTERM lets it finish what it holds. */
public final class Worker {
    private Worker() {}

    private static Payload hello(Run run) throws PermanentException {
        String name = run.job().getPayload().getText();
        if (name.isEmpty()) {
            throw new PermanentException("NO_NAME", "nobody to greet");
        }
        System.out.println("hello, " + name);
        return Payload.newBuilder().setText("hello, " + name).build();
    }

    public static void main(String[] arguments) throws InterruptedException {
        try (Connection connection = Connection.of(arguments)) {
            JobWorker worker = new JobWorker(
                    connection.channel(),
                    new JobWorker.Options(
                            "java-" + ProcessHandle.current().pid() + "-" + UUID.randomUUID(),
                            List.of("default"),
                            4,
                            Duration.ofSeconds(30),
                            Duration.ofSeconds(20),
                            Map.of("hello", Worker::hello)),
                    (update, reason) -> { });
            Thread main = Thread.currentThread();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                worker.stop();
                join(main); // the JVM ends when its hooks have: not before the drain
            }));
            worker.run();
        }
    }

    static void join(Thread thread) {
        try {
            thread.join();
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }
}
