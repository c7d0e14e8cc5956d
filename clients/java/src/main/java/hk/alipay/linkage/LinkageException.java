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
 * A call that did not succeed.
 *
 * <p>{@link #outcome()} and {@link #retry()} are all that most callers need. A status that the gateway did
 * not make (this caller's own deadline, a proxy, a lost connection) has no reason, and its outcome is
 * {@link Outcome#UNKNOWN}: the same request again is how one finds out.
 */
public final class LinkageException extends RuntimeException {

    private static final long serialVersionUID = 1L;

    /** All that is told. A missing delay is null: an Optional does not serialise. */
    private record Told(
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

    private final Told told;

    private LinkageException(Told told, StatusRuntimeException cause) {
        super(text(told), cause);
        this.told = told;
    }

    // gRPC's exception does not serialise, and stays behind.
    private Object writeReplace() {
        LinkageException alone = new LinkageException(told, null);
        alone.setStackTrace(getStackTrace());
        return alone;
    }

    /**
     * Reads what gRPC threw.
     *
     * @param earlierDoubt whether an earlier attempt at this call may have taken effect
     */
    static LinkageException of(StatusRuntimeException cause, boolean earlierDoubt) {
        Details details = new Details(cause.getTrailers());
        Optional<ErrorInfo> ours = details.info();
        Retry retry = ours.map(info -> Retry.of(info.getMetadataMap().get("retry")))
                .orElse(Retry.SAME_REQUEST_ID);
        Outcome outcome = details.outcome();
        // It may be said of one attempt before the ledger is read, and then takes nothing back. Where the
        // request itself is at fault it holds for all of them.
        boolean ofThisAttemptOnly = retry == Retry.SAME_REQUEST_ID || retry == Retry.OPERATOR;
        if (outcome == Outcome.NOT_SENT && ofThisAttemptOnly && earlierDoubt) {
            outcome = Outcome.UNKNOWN;
        }
        Status status = cause.getStatus();
        Told told = new Told(
                status.getCode(),
                status.getDescription() == null ? "" : status.getDescription(),
                outcome,
                retry,
                ours.map(ErrorInfo::getReason).orElse(""),
                ours.map(info -> Map.copyOf(info.getMetadataMap())).orElse(Map.of()),
                List.copyOf(details.violations()),
                details.retryDelay().orElse(null),
                details.requestId());
        return new LinkageException(told, cause);
    }

    private static String text(Told told) {
        String why = (told.code() + " " + told.reason()).strip();
        String sentence = told.sentence().isEmpty() ? "" : ": " + told.sentence();
        return why + sentence + " (outcome: " + told.outcome() + ", retry: " + told.retry() + ")";
    }

    /** gRPC's status code. */
    public Status.Code code() {
        return told.code();
    }

    /** The status message: a constant sentence where the gateway made it. */
    public String sentence() {
        return told.sentence();
    }

    /** What happened. */
    public Outcome outcome() {
        return told.outcome();
    }

    /** What to do next. */
    public Retry retry() {
        return told.retry();
    }

    /** The gateway's word for why; empty where the gateway did not make the status. */
    public String reason() {
        return told.reason();
    }

    /** The reason as a constant; UNRECOGNIZED where it is newer than this client, UNSPECIFIED for none. */
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
        return told.metadata();
    }

    /** Every fault of the request, where it was invalid. */
    public List<Violation> violations() {
        return told.violations();
    }

    /** How long to wait before the same request is sent again; empty where it is not to be. */
    public Optional<Duration> retryDelay() {
        return Optional.ofNullable(told.retryDelay());
    }

    /** The request id as the gateway read it; empty where it did not. */
    public String requestId() {
        return told.requestId();
    }
}
