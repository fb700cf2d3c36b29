package jobwire.example;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** A random wait below a bound that doubles, so that a thousand workers do not come back at once. */
final class Backoff {
    private static final long FIRST_MILLIS = 100;
    private static final long LONGEST_MILLIS = 2_000;

    private long bound;

    Duration next() {
        bound = Math.min(Math.max(2 * bound, FIRST_MILLIS), LONGEST_MILLIS);
        return Duration.ofMillis(ThreadLocalRandom.current().nextLong(bound));
    }

    void reset() {
        bound = 0;
    }
}
