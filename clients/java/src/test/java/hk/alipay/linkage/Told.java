package hk.alipay.linkage;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/** What a caller was told of one call, success or not, in the words of the shared files. */
record Told(
        String code,
        String reason,
        String outcome,
        String retry,
        Map<String, String> metadata,
        List<String> violations,
        JsonObject response,
        long tookMs) {

    static Told of(Supplier<? extends Message> call) {
        long began = System.nanoTime();
        try {
            Message response = call.get();
            return new Told("OK", "", "OK", "", Map.of(), List.of(), json(response), since(began));
        } catch (LinkageException error) {
            return new Told(
                    error.code().name(),
                    error.reason(),
                    error.outcome().toString(),
                    error.retry().toString(),
                    error.metadata(),
                    error.violations().stream().map(Violation::field).sorted().toList(),
                    new JsonObject(),
                    since(began));
        }
    }

    private static long since(long began) {
        return (System.nanoTime() - began) / 1_000_000;
    }

    private static JsonObject json(Message response) {
        try {
            return JsonParser.parseString(JsonFormat.printer().print(response)).getAsJsonObject();
        } catch (InvalidProtocolBufferException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
