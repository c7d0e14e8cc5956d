package hk.alipay.linkage;

import com.google.rpc.ErrorInfo;
import hk.alipay.linkage.v1.ErrorReason;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
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

    private final transient Status status;
    private final transient ErrorInfo info;
    private final transient Details details;
    private final Outcome outcome;
    private final Retry retry;

    private LinkageException(
            StatusRuntimeException cause, Details details, ErrorInfo info, Outcome outcome, Retry retry) {
        super(text(cause.getStatus(), info.getReason(), outcome, retry), cause);
        this.status = cause.getStatus();
        this.details = details;
        this.info = info;
        this.outcome = outcome;
        this.retry = retry;
    }

    /**
     * Reads what gRPC threw.
     *
     * @param earlierDoubt whether an earlier attempt at this call may have taken effect
     */
    static LinkageException of(StatusRuntimeException cause, boolean earlierDoubt) {
        Details details = new Details(cause.getTrailers());
        Optional<ErrorInfo> ours = details.info();
        Outcome outcome = details.outcome();
        if (outcome == Outcome.NOT_SENT && earlierDoubt) {
            outcome = Outcome.UNKNOWN;
        }
        Retry retry = ours.map(told -> Retry.of(told.getMetadataMap().get("retry")))
                .orElse(Retry.SAME_REQUEST_ID);
        ErrorInfo info = ours.orElse(ErrorInfo.getDefaultInstance());
        return new LinkageException(cause, details, info, outcome, retry);
    }

    private static String text(Status status, String reason, Outcome outcome, Retry retry) {
        String told = (status.getCode() + " " + reason).strip();
        String sentence = status.getDescription() == null ? "" : ": " + status.getDescription();
        return told + sentence + " (outcome: " + outcome + ", retry: " + retry + ")";
    }

    /** gRPC's status code. */
    public Status.Code code() {
        return status.getCode();
    }

    /** The status message: a constant sentence where the gateway made it. */
    public String sentence() {
        return status.getDescription() == null ? "" : status.getDescription();
    }

    /** What happened. */
    public Outcome outcome() {
        return outcome;
    }

    /** What to do next. */
    public Retry retry() {
        return retry;
    }

    /** The gateway's word for why; empty where the gateway did not make the status. */
    public String reason() {
        return info.getReason();
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
        return info.getMetadataMap();
    }

    /** Every fault of the request, where it was invalid. */
    public List<Violation> violations() {
        return details.violations();
    }

    /** How long to wait before the same request is sent again; empty where it is not to be. */
    public Optional<Duration> retryDelay() {
        return details.retryDelay();
    }

    /** The request id as the gateway read it; empty where it did not. */
    public String requestId() {
        return details.requestId();
    }
}
