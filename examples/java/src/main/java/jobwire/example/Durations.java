package jobwire.example;

import java.time.Duration;

/** Durations of java.time and of protobuf. */
final class Durations {
    private Durations() {}

    static com.google.protobuf.Duration of(Duration duration) {
        return com.google.protobuf.Duration.newBuilder()
                .setSeconds(duration.getSeconds())
                .setNanos(duration.getNano())
                .build();
    }

    static com.google.protobuf.Duration ofSeconds(long seconds) {
        return of(Duration.ofSeconds(seconds));
    }

    static Duration of(com.google.protobuf.Duration duration) {
        return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
    }
}
