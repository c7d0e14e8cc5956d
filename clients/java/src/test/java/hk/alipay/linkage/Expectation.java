package hk.alipay.linkage;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.StreamSupport;

/** The expected result of a step. Absent fields are not checked. */
record Expectation(JsonObject wanted) {

    private static final Set<String> KNOWN = Set.of(
            "code", "reason", "outcome", "retry", "metadata", "violations", "response",
            "took_ms_min", "took_ms_max");

    static Expectation of(JsonObject wanted) {
        Scenarios.onlyKnown("expect", wanted, KNOWN);
        return new Expectation(wanted);
    }

    void check(CallResult result) {
        for (Map.Entry<String, JsonElement> entry : wanted.entrySet()) {
            JsonElement value = entry.getValue();
            String where = entry.getKey() + " of " + result;
            switch (entry.getKey()) {
                case "code" -> assertEquals(value.getAsString(), result.code(), where);
                case "reason" -> assertEquals(value.getAsString(), result.reason(), where);
                case "outcome" -> assertEquals(value.getAsString(), result.outcome(), where);
                case "retry" -> assertEquals(value.getAsString(), result.retry(), where);
                case "metadata" -> value.getAsJsonObject().asMap().forEach((name, text) ->
                        assertEquals(text.getAsString(), result.metadata().get(name), name + " in " + where));
                case "violations" -> assertEquals(sorted(value.getAsJsonArray()), result.violations(), where);
                case "response" -> assertTrue(isPartOf(value, result.response()), where);
                case "took_ms_min" -> assertTrue(result.tookMs() >= value.getAsLong(), where);
                case "took_ms_max" -> assertTrue(result.tookMs() <= value.getAsLong(), where);
                default -> throw new AssertionError("unknown field in an expect: " + entry.getKey());
            }
        }
    }

    private static List<String> sorted(JsonArray names) {
        return StreamSupport.stream(names.spliterator(), false)
                .map(JsonElement::getAsString)
                .sorted()
                .toList();
    }

    /** Returns whether {@code whole} contains every member of {@code part}, recursively, and maybe more. */
    private static boolean isPartOf(JsonElement part, JsonElement whole) {
        if (!part.isJsonObject()) {
            return part.equals(whole);
        }
        return whole != null
                && whole.isJsonObject()
                && part.getAsJsonObject().asMap().entrySet().stream()
                        .allMatch(member -> isPartOf(
                                member.getValue(), whole.getAsJsonObject().get(member.getKey())));
    }
}
