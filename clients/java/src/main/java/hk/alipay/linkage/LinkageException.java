package hk.alipay.linkage;

import com.google.rpc.ErrorInfo;
import hk.alipay.linkage.v1.ErrorReason;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.Serializable;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A call that did not return OK.
 *
 * <p>Most callers need only {@link #outcome()} and {@link #retry()}. If the status did not come from the
 * gateway (but from this caller's own deadline, a proxy or a lost connection, for example), the reason is
 * empty and the outcome is {@link Outcome#UNKNOWN}: send the same request again to learn its outcome.
 */
public final class LinkageException extends RuntimeException {

    private static final long serialVersionUID = 1L;

    /** The fields of the exception. A missing delay is null, because an Optional is not serialisable. */
    private record Fields(
            Status.Code code,
            String sentence,
            Outcome outcome,
            Retry retry,
            String reason,
            Map<String, String> metadata,
            List<Violation> violations,
            Duration retryDelay,
            String requestId)
            implements Serializable {}

    private final Fields fields;

    private LinkageException(Fields fields, StatusRuntimeException cause) {
        super(text(fields), cause);
        this.fields = fields;
    }

    // Serialises without the cause, because gRPC's exception is not serialisable.
    private Object writeReplace() {
        LinkageException withoutCause = new LinkageException(fields, null);
        withoutCause.setStackTrace(getStackTrace());
        return withoutCause;
    }

    /**
     * Returns the exception for an exception of gRPC.
     *
     * @param earlierDoubt whether an earlier attempt of this call may have taken effect
     */
    static LinkageException of(StatusRuntimeException cause, boolean earlierDoubt) {
        Details details = new Details(cause.getTrailers());
        Optional<ErrorInfo> ours = details.info();
        Retry retry = ours.map(info -> Retry.of(info.getMetadataMap().get("retry")))
                .orElse(Retry.SAME_REQUEST_ID);
        Outcome outcome = details.outcome();
        // NOT_SENT can be true only for the last attempt, because the gateway can return it before it reads
        // the ledger. If the request itself is invalid, NOT_SENT is true for all attempts.
        boolean ofThisAttemptOnly = retry == Retry.SAME_REQUEST_ID || retry == Retry.OPERATOR;
        if (outcome == Outcome.NOT_SENT && ofThisAttemptOnly && earlierDoubt) {
            outcome = Outcome.UNKNOWN;
        }
        Status status = cause.getStatus();
        Fields fields = new Fields(
                status.getCode(),
                status.getDescription() == null ? "" : status.getDescription(),
                outcome,
                retry,
                ours.map(ErrorInfo::getReason).orElse(""),
                ours.map(info -> Map.copyOf(info.getMetadataMap())).orElse(Map.of()),
                List.copyOf(details.violations()),
                details.retryDelay().orElse(null),
                details.requestId());
        return new LinkageException(fields, cause);
    }

    private static String text(Fields fields) {
        String title = (fields.code() + " " + fields.reason()).strip();
        String sentence = fields.sentence().isEmpty() ? "" : ": " + fields.sentence();
        return title + sentence + " (outcome: " + fields.outcome() + ", retry: " + fields.retry() + ")";
    }

    /** gRPC's status code. */
    public Status.Code code() {
        return fields.code();
    }

    /** The status message. If it comes from the gateway, it is a constant sentence. */
    public String sentence() {
        return fields.sentence();
    }

    /** The outcome of the call's content. */
    public Outcome outcome() {
        return fields.outcome();
    }

    /** The next step. */
    public Retry retry() {
        return fields.retry();
    }

    /** A value of ErrorReason without its prefix; empty if the status did not come from the gateway. */
    public String reason() {
        return fields.reason();
    }

    /** The reason as a constant; UNRECOGNIZED if it is newer than this client, UNSPECIFIED if it is empty. */
    public ErrorReason errorReason() {
        if (reason().isEmpty()) {
            return ErrorReason.ERROR_REASON_UNSPECIFIED;
        }
        try {
            return ErrorReason.valueOf("ERROR_REASON_" + reason());
        } catch (IllegalArgumentException newer) {
            return ErrorReason.UNRECOGNIZED;
        }
    }

    /** The whole ErrorInfo.metadata: attempts, result_code, result_message, tracer_id, error_id ... */
    public Map<String, String> metadata() {
        return fields.metadata();
    }

    /** Every invalid field of the request. */
    public List<Violation> violations() {
        return fields.violations();
    }

    /** The wait before the same request is sent again; empty if the gateway named none. */
    public Optional<Duration> retryDelay() {
        return Optional.ofNullable(fields.retryDelay());
    }

    /** The request id that the gateway received; empty if the gateway did not report it. */
    public String requestId() {
        return fields.requestId();
    }
}
