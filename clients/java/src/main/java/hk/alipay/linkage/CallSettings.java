package hk.alipay.linkage;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;

/**
 * What one call is given besides its request.
 *
 * @param deadline how long the call may take, all its retries included; a day at most
 * @param metadata what is passed on with it, such as {@code traceparent} and {@code x-request-id}: printable
 *     ASCII; of anything else the call throws IllegalArgumentException
 */
public record CallSettings(Duration deadline, Map<String, String> metadata) {

    /** Ten seconds, and no metadata. */
    public static final CallSettings DEFAULT = new CallSettings(Duration.ofSeconds(10), Map.of());

    /** Keeps a copy of the metadata. */
    public CallSettings {
        metadata = Map.copyOf(metadata);
    }

    /** Returns the same with another deadline. */
    public CallSettings withDeadline(Duration deadline) {
        return new CallSettings(deadline, metadata);
    }

    /** Returns the same with one more entry of metadata. */
    public CallSettings withMetadata(String name, String value) {
        Map<String, String> more = new HashMap<>(metadata);
        more.put(name, value);
        return new CallSettings(deadline, more);
    }
}
