package jobwire.example;

import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/** A channel for try-with-resources. */
record Connection(ManagedChannel channel) implements AutoCloseable {
    private static final String DEFAULT_TARGET = "127.0.0.1:7272";

    /** To the server that the program's first argument names. */
    static Connection of(String[] arguments) {
        String target = arguments.length > 0 ? arguments[0] : DEFAULT_TARGET;
        return new Connection(Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
                .keepAliveTime(20, TimeUnit.SECONDS) // a server that vanished without a word is noticed
                .build());
    }

    @Override
    public void close() throws InterruptedException {
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
}
