package hk.alipay.linkage;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import hk.alipay.linkage.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The exception for valid and invalid trailers. */
class LinkageExceptionTest {

    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

    @Test
    void everyDetailIsRead() {
        LinkageException error = read(trailers(
                info("linkage.alipayhk", "INVALID_REQUEST", "not_sent", "new_request_id"),
                BadRequest.newBuilder()
                        .addFieldViolations(BadRequest.FieldViolation.newBuilder()
                                .setField("user_id")
                                .setDescription("is required"))
                        .build(),
                RetryInfo.newBuilder().setRetryDelay(Durations.fromMillis(1500)).build(),
                RequestInfo.newBuilder().setRequestId("loyalty-1").build()));

        assertEquals(Status.Code.UNAVAILABLE, error.code());
        assertEquals("A sentence.", error.sentence());
        assertEquals(Outcome.NOT_SENT, error.outcome());
        assertEquals(Retry.NEW_REQUEST_ID, error.retry());
        assertEquals("INVALID_REQUEST", error.reason());
        assertEquals(ErrorReason.ERROR_REASON_INVALID_REQUEST, error.errorReason());
        assertEquals(Map.of("outcome", "not_sent", "retry", "new_request_id"), error.metadata());
        assertEquals(List.of(new Violation("user_id", "is required")), error.violations());
        assertEquals(Optional.of(Duration.ofMillis(1500)), error.retryDelay());
        assertEquals("loyalty-1", error.requestId());
        assertEquals(
                "UNAVAILABLE INVALID_REQUEST: A sentence. (outcome: not_sent, retry: new_request_id)",
                error.getMessage());
    }

    @Test
    void noTrailersMeanUnknown() {
        assertUnknownWithoutDetails(read(null));
    }

    @Test
    void missingDetailsMeanUnknown() {
        assertUnknownWithoutDetails(read(new Metadata()));
    }

    @Test
    void malformedBytesMeanUnknown() {
        Metadata trailers = new Metadata();
        trailers.put(DETAILS, new byte[] {(byte) 0xff, 0x00, 0x7f, 0x1a});
        assertUnknownWithoutDetails(read(trailers));
    }

    @Test
    void aMalformedErrorInfoMeansUnknown() {
        Any broken = Any.pack(ErrorInfo.getDefaultInstance()).toBuilder()
                .setValue(ByteString.copyFrom(new byte[] {0x0a, 0x7f}))
                .build();
        assertUnknownWithoutDetails(read(packed(List.of(broken))));
    }

    @Test
    void anErrorInfoOfAnotherDomainMeansUnknown() {
        assertUnknownWithoutDetails(
                read(trailers(info("mesh.example", "UPSTREAM_RESET", "not_sent", "new_request_id"))));
    }

    @Test
    void anErrorInfoOfAnotherDomainIsIgnored() {
        LinkageException error = read(trailers(
                info("mesh.example", "UPSTREAM_RESET", "unknown", "never"),
                info("linkage.alipayhk", "WALLET_REJECTED", "rejected", "never")));
        assertEquals(Outcome.REJECTED, error.outcome());
    }

    @Test
    void twoErrorInfosOfTheGatewayMeanUnknown() {
        assertUnknownWithoutDetails(read(trailers(
                info("linkage.alipayhk", "WALLET_REJECTED", "rejected", "never"),
                info("linkage.alipayhk", "OVERLOADED", "not_sent", "new_request_id"))));
    }

    @Test
    void serialisationKeepsAllFields() throws Exception {
        LinkageException error = read(trailers(
                info("linkage.alipayhk", "INVALID_REQUEST", "not_sent", "new_request_id"),
                BadRequest.newBuilder()
                        .addFieldViolations(BadRequest.FieldViolation.newBuilder().setField("user_id"))
                        .build(),
                RetryInfo.newBuilder().setRetryDelay(Durations.fromMillis(1500)).build(),
                RequestInfo.newBuilder().setRequestId("loyalty-1").build()));
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        new ObjectOutputStream(bytes).writeObject(error);
        LinkageException again = (LinkageException)
                new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray())).readObject();

        assertEquals(error.getMessage(), again.getMessage());
        assertEquals(error.code(), again.code());
        assertEquals(error.outcome(), again.outcome());
        assertEquals(error.retry(), again.retry());
        assertEquals(error.errorReason(), again.errorReason());
        assertEquals(error.metadata(), again.metadata());
        assertEquals(error.violations(), again.violations());
        assertEquals(error.retryDelay(), again.retryDelay());
        assertEquals(error.requestId(), again.requestId());
    }

    @Test
    void aMalformedDetailIsIgnored() {
        Any broken = Any.pack(BadRequest.getDefaultInstance()).toBuilder()
                .setValue(ByteString.copyFrom(new byte[] {0x0a, 0x7f}))
                .build();
        Any ours = Any.pack(info("linkage.alipayhk", "WALLET_REJECTED", "rejected", "never"));
        LinkageException error = read(packed(List.of(broken, ours)));
        assertEquals(Outcome.REJECTED, error.outcome());
        assertEquals(List.of(), error.violations());
    }

    @ParameterizedTest
    @CsvSource({
        "not_sent, NOT_SENT", "rejected, REJECTED", "unknown, UNKNOWN",
        "'', UNKNOWN", "NOT_SENT, UNKNOWN", "' rejected', UNKNOWN", "half_sent, UNKNOWN",
    })
    void anyOtherOutcomeTextIsUnknown(String text, Outcome expected) {
        LinkageException error = read(trailers(info("linkage.alipayhk", "WALLET_REJECTED", text, "never")));
        assertEquals(expected, error.outcome());
    }

    @Test
    void anyOtherRetryTextIsOperator() {
        LinkageException error = read(trailers(info("linkage.alipayhk", "X", "not_sent", "ask_again")));
        assertEquals(Retry.OPERATOR, error.retry());
    }

    @Test
    void anUnknownReasonKeepsItsOutcome() {
        LinkageException error = read(trailers(info("linkage.alipayhk", "SOLAR", "rejected", "never")));
        assertEquals("SOLAR", error.reason());
        assertEquals(ErrorReason.UNRECOGNIZED, error.errorReason());
        assertEquals(Outcome.REJECTED, error.outcome());
    }

    @ParameterizedTest
    @CsvSource({"250, PT0.25S", "0, PT0S", "-1,", "soon,", "99999999999999999999,"})
    void withoutRetryInfoTheDelayIsThePushback(String trailer, Duration expected) {
        Metadata trailers = new Metadata();
        trailers.put(PUSHBACK, trailer);
        assertEquals(Optional.ofNullable(expected), read(trailers).retryDelay());
    }

    @Test
    void notSentAfterALostAttemptIsUnknown() {
        Metadata trailers = trailers(info("linkage.alipayhk", "OVERLOADED", "not_sent", "same_request_id"));
        LinkageException error =
                LinkageException.of(Status.RESOURCE_EXHAUSTED.asRuntimeException(trailers), true);
        assertEquals(Outcome.UNKNOWN, error.outcome());
        assertEquals(Retry.SAME_REQUEST_ID, error.retry());
        assertFalse(error.getMessage().contains("not_sent"));
    }

    @ParameterizedTest
    @CsvSource({
        "same_request_id, UNKNOWN", "operator, UNKNOWN", "new_request_id, NOT_SENT", "never, NOT_SENT",
    })
    void notSentAfterALostAttemptIsKeptIfTheRequestIsInvalid(String retry, Outcome expected) {
        Metadata trailers = trailers(info("linkage.alipayhk", "X", "not_sent", retry));
        assertEquals(
                expected, LinkageException.of(Status.ABORTED.asRuntimeException(trailers), true).outcome());
    }

    private static void assertUnknownWithoutDetails(LinkageException error) {
        assertEquals(Outcome.UNKNOWN, error.outcome());
        assertEquals("", error.reason());
        assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, error.errorReason());
        assertEquals(Retry.SAME_REQUEST_ID, error.retry());
        assertEquals(Map.of(), error.metadata());
        assertEquals(List.of(), error.violations());
        assertEquals(Optional.empty(), error.retryDelay());
        assertEquals("", error.requestId());
    }

    private static LinkageException read(Metadata trailers) {
        return LinkageException.of(
                Status.UNAVAILABLE.withDescription("A sentence.").asRuntimeException(trailers), false);
    }

    private static ErrorInfo info(String domain, String reason, String outcome, String retry) {
        return ErrorInfo.newBuilder()
                .setDomain(domain)
                .setReason(reason)
                .putMetadata("outcome", outcome)
                .putMetadata("retry", retry)
                .build();
    }

    static Metadata trailers(Message... details) {
        return packed(List.of(details).stream().map(Any::pack).toList());
    }

    private static Metadata packed(List<Any> details) {
        Metadata trailers = new Metadata();
        com.google.rpc.Status status =
                com.google.rpc.Status.newBuilder().addAllDetails(details).build();
        trailers.put(DETAILS, status.toByteArray());
        return trailers;
    }
}
