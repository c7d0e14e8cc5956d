package hk.alipay.linkage;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import hk.alipay.linkage.v1.BindAccountRequest;
import hk.alipay.linkage.v1.SyncLinkageRequest;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** The scenarios that the clients of all languages must pass, against a real gateway. Run by name. */
class Scenarios {

    private static final Set<String> STEP = Set.of("method", "request", "deadline_ms", "answers", "expect");

    private static LinkageClient client;

    @BeforeAll
    static void connect() throws IOException {
        client = Environment.client();
    }

    @AfterAll
    static void close() {
        if (client != null) {
            client.close();
        }
    }

    @TestFactory
    Stream<DynamicTest> scenarios() throws IOException {
        String text = Files.readString(Path.of(Environment.required("LINKAGE_SCENARIOS")))
                .replace("${run}", Environment.required("LINKAGE_RUN"));
        JsonArray scenarios = JsonParser.parseString(text).getAsJsonObject().getAsJsonArray("scenarios");
        if (scenarios.isEmpty()) {
            throw new AssertionError("the scenario file has no scenarios");
        }
        return elements(scenarios).map(scenario -> DynamicTest.dynamicTest(
                scenario.get("name").getAsString(), () -> play(scenario.getAsJsonArray("steps"))));
    }

    private static void play(JsonArray steps) throws Exception {
        for (JsonObject step : elements(steps).toList()) {
            onlyKnown("step", step, STEP);
            if (step.has("answers")) {
                setAnswers(step);
            }
            Expectation.of(step.getAsJsonObject("expect")).check(call(step));
        }
    }

    private static CallResult call(JsonObject step) throws InvalidProtocolBufferException {
        long deadlineMs = step.has("deadline_ms") ? step.get("deadline_ms").getAsLong() : 10_000;
        CallSettings settings = CallSettings.DEFAULT.withDeadline(Duration.ofMillis(deadlineMs));
        switch (step.get("method").getAsString()) {
            case "SyncLinkage" -> {
                SyncLinkageRequest request = read(step, SyncLinkageRequest.newBuilder()).build();
                return CallResult.of(() -> client.syncLinkage(request, settings));
            }
            case "BindAccount" -> {
                BindAccountRequest request = read(step, BindAccountRequest.newBuilder()).build();
                return CallResult.of(() -> client.bindAccount(request, settings));
            }
            default -> throw new AssertionError("unknown method: " + step.get("method"));
        }
    }

    private static <B extends Message.Builder> B read(JsonObject step, B builder)
            throws InvalidProtocolBufferException {
        JsonFormat.parser().merge(step.getAsJsonObject("request").toString(), builder);
        return builder;
    }

    private static void setAnswers(JsonObject step) throws IOException, InterruptedException {
        JsonArray answers = new JsonArray();
        for (JsonElement fault : step.getAsJsonArray("answers")) {
            JsonObject answer = new JsonObject();
            answer.add("fault", fault);
            answers.add(answer);
        }
        JsonObject body = new JsonObject();
        body.add("answers", answers);
        body.add("api", step.get("method"));
        URI console = URI.create(Environment.required("LINKAGE_CONSOLE") + "/__sandbox/answers");
        HttpResponse<String> response = HttpClient.newBuilder()
                .proxy(HttpClient.Builder.NO_PROXY)
                .build()
                .send(
                        HttpRequest.newBuilder(console)
                                .POST(HttpRequest.BodyPublishers.ofString(body.toString()))
                                .build(),
                        HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new AssertionError("the sandbox's console returned HTTP " + response.statusCode());
        }
    }

    /** Fails if the file has a field that this test does not know and would not check. */
    static void onlyKnown(String where, JsonObject object, Set<String> known) {
        Set<String> unknown = new TreeSet<>(object.keySet());
        unknown.removeAll(known);
        if (!unknown.isEmpty()) {
            throw new AssertionError("unknown fields in a " + where + ": " + unknown);
        }
    }

    private static Stream<JsonObject> elements(JsonArray array) {
        return StreamSupport.stream(array.spliterator(), false).map(JsonElement::getAsJsonObject);
    }
}
