package hk.alipay.linkage;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/**
 * The settings of one call.
 *
 * @param deadline the timeout of the call with all its retries; at most one day
 * @param metadata the metadata to send, such as {@code traceparent} and {@code x-request-id}. Values must be
 *     printable ASCII, otherwise the call throws IllegalArgumentException
 */
public record CallSettings(Duration deadline, Map<String, String> metadata) {

    /** A deadline of 10 seconds, and no metadata. */
    public static final CallSettings DEFAULT = new CallSettings(Duration.ofSeconds(10), Map.of());

    /** Copies the metadata. */
    public CallSettings {
        metadata = Map.copyOf(metadata);
    }

    /** Returns a copy with another deadline. */
    public CallSettings withDeadline(Duration deadline) {
        return new CallSettings(deadline, metadata);
    }

    /** Returns a copy with one more entry of metadata. */
    public CallSettings withMetadata(String name, String value) {
        Map<String, String> more = new HashMap<>(metadata);
        more.put(name, value);
        return new CallSettings(deadline, more);
    }
}
