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

/** What a step expects its caller to be told; what it leaves out may be anything. */
record Expectation(JsonObject wanted) {

    private static final Set<String> KNOWN = Set.of(
            "code", "reason", "outcome", "retry", "metadata", "violations", "response",
            "took_ms_min", "took_ms_max");

    static Expectation of(JsonObject wanted) {
        Scenarios.onlyKnown("expect", wanted, KNOWN);
        return new Expectation(wanted);
    }

    void check(Told told) {
        for (Map.Entry<String, JsonElement> entry : wanted.entrySet()) {
            JsonElement value = entry.getValue();
            String where = entry.getKey() + " of " + told;
            switch (entry.getKey()) {
                case "code" -> assertEquals(value.getAsString(), told.code(), where);
                case "reason" -> assertEquals(value.getAsString(), told.reason(), where);
                case "outcome" -> assertEquals(value.getAsString(), told.outcome(), where);
                case "retry" -> assertEquals(value.getAsString(), told.retry(), where);
                case "metadata" -> value.getAsJsonObject().asMap().forEach((name, text) ->
                        assertEquals(text.getAsString(), told.metadata().get(name), name + " in " + where));
                case "violations" -> assertEquals(sorted(value.getAsJsonArray()), told.violations(), where);
                case "response" -> assertTrue(isPartOf(value, told.response()), where);
                case "took_ms_min" -> assertTrue(told.tookMs() >= value.getAsLong(), where);
                case "took_ms_max" -> assertTrue(told.tookMs() <= value.getAsLong(), where);
                default -> throw new AssertionError("unknown in an expect: " + entry.getKey());
            }
        }
    }

    private static List<String> sorted(JsonArray names) {
        return StreamSupport.stream(names.spliterator(), false)
                .map(JsonElement::getAsString)
                .sorted()
                .toList();
    }

    /** Whether every member that is wanted is there, at any depth; more may be there. */
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
