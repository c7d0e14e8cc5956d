package hk.alipay.linkage;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.grpc.Metadata;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * The details of an error in the gateway's trailers.
 *
 * <p>Details that cannot be parsed count as absent.
 */
final class Details {

    private static final String DOMAIN = "linkage.alipayhk";
    private static final Metadata.Key<byte[]> STATUS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

    private final Metadata trailers;
    private final Status status;

    Details(Metadata trailers) {
        this.trailers = trailers == null ? new Metadata() : trailers;
        this.status = statusOf(this.trailers.get(STATUS));
    }

    /** Returns the gateway's ErrorInfo; empty if the status did not come from the gateway. */
    Optional<ErrorInfo> info() {
        List<ErrorInfo> ours = all(ErrorInfo.class).stream()
                .filter(info -> info.getDomain().equals(DOMAIN))
                .toList();
        // Two ErrorInfos can contradict each other, so neither is used.
        return ours.size() == 1 ? Optional.of(ours.get(0)) : Optional.empty();
    }

    Outcome outcome() {
        return Outcome.of(info().map(info -> info.getMetadataMap().get("outcome")).orElse(""));
    }

    List<Violation> violations() {
        return all(BadRequest.class).stream()
                .flatMap(bad -> bad.getFieldViolationsList().stream())
                .map(fault -> new Violation(fault.getField(), fault.getDescription()))
                .toList();
    }

    String requestId() {
        return all(RequestInfo.class).stream().map(RequestInfo::getRequestId).findFirst().orElse("");
    }

    /** Returns the wait in RetryInfo, or else the pushback; empty if it is negative or absent. */
    Optional<Duration> retryDelay() {
        return all(RetryInfo.class).stream()
                .map(retry -> retry.getRetryDelay())
                .map(delay -> Duration.ofMillis(delay.getSeconds() * 1000 + delay.getNanos() / 1_000_000))
                .findFirst()
                .or(this::pushback)
                .filter(delay -> !delay.isNegative());
    }

    private Optional<Duration> pushback() {
        try {
            return Optional.ofNullable(trailers.get(PUSHBACK)).map(Long::valueOf).map(Duration::ofMillis);
        } catch (NumberFormatException notANumber) {
            return Optional.empty();
        }
    }

    private <T extends Message> List<T> all(Class<T> kind) {
        return status.getDetailsList().stream().flatMap(detail -> read(detail, kind).stream()).toList();
    }

    private static <T extends Message> Optional<T> read(Any detail, Class<T> kind) {
        try {
            return detail.is(kind) ? Optional.of(detail.unpack(kind)) : Optional.empty();
        } catch (InvalidProtocolBufferException broken) {
            return Optional.empty();
        }
    }

    private static Status statusOf(byte[] bytes) {
        try {
            return bytes == null ? Status.getDefaultInstance() : Status.parseFrom(bytes);
        } catch (InvalidProtocolBufferException broken) {
            return Status.getDefaultInstance();
        }
    }
}
