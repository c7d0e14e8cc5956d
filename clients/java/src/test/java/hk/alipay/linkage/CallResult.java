package hk.alipay.linkage;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/** The result of one call, with the names that clients/scenarios.json uses. */
record CallResult(
        String code,
        String reason,
        String outcome,
        String retry,
        Map<String, String> metadata,
        List<String> violations,
        JsonObject response,
        long tookMs) {

    static CallResult of(Supplier<? extends Message> call) {
        long start = System.nanoTime();
        try {
            Message response = call.get();
            return new CallResult("OK", "", "OK", "", Map.of(), List.of(), json(response), since(start));
        } catch (LinkageException error) {
            return new CallResult(
                    error.code().name(),
                    error.reason(),
                    error.outcome().toString(),
                    error.retry().toString(),
                    error.metadata(),
                    error.violations().stream().map(Violation::field).sorted().toList(),
                    new JsonObject(),
                    since(start));
        }
    }

    private static long since(long start) {
        return (System.nanoTime() - start) / 1_000_000;
    }

    private static JsonObject json(Message response) {
        try {
            return JsonParser.parseString(JsonFormat.printer().print(response)).getAsJsonObject();
        } catch (InvalidProtocolBufferException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
