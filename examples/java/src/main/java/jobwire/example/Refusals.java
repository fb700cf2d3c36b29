package jobwire.example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Optional;

/** What a failed call says beside its code. */
final class Refusals {
    private Refusals() {}

    /** Why jobwire refused the call, such as JOB_EXISTS; empty when it was not jobwire that did. */
    static String reason(StatusRuntimeException refused) {
        return detail(refused, ErrorInfo.class)
                .filter(info -> info.getDomain().equals("jobwire"))
                .map(ErrorInfo::getReason)
                .orElse("");
    }

    /** How long the server asks its caller to wait; nothing when it does not. */
    static Duration retryDelay(StatusRuntimeException refused) {
        return detail(refused, RetryInfo.class).map(info -> Durations.of(info.getRetryDelay())).orElse(Duration.ZERO);
    }

    private static <T extends Message> Optional<T> detail(StatusRuntimeException refused, Class<T> kind) {
        Status status = StatusProto.fromThrowable(refused);
        for (Any detail : status.getDetailsList()) {
            if (detail.is(kind)) {
                try {
                    return Optional.of(detail.unpack(kind));
                } catch (InvalidProtocolBufferException unreadable) {
                    return Optional.empty();
                }
            }
        }
        return Optional.empty();
    }
}
