package hk.alipay.linkage;

import static io.grpc.Status.ABORTED;
import static io.grpc.Status.CANCELLED;
import static io.grpc.Status.RESOURCE_EXHAUSTED;
import static io.grpc.Status.UNAVAILABLE;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.rpc.ErrorInfo;
import hk.alipay.linkage.v1.LinkageServiceGrpc;
import hk.alipay.linkage.v1.SyncLinkageRequest;
import hk.alipay.linkage.v1.SyncLinkageResponse;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Retries, deadlines and metadata, against a server that returns the answers of the test. */
class LinkageClientTest {

    private static final SyncLinkageRequest REQUEST =
            SyncLinkageRequest.newBuilder().setRequestId("loyalty-1").build();

    private final Queue<Throwable> failures = new ArrayDeque<>();
    private final Queue<Metadata> attempts = new ConcurrentLinkedQueue<>();
    private final Queue<Long> millisLeft = new ConcurrentLinkedQueue<>();
    private Server server;
    private LinkageClient client;

    @BeforeEach
    void start() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new Scripted())
                .intercept(new Recording())
                .build()
                .start();
        client = LinkageClient.plaintext("127.0.0.1:" + server.getPort());
    }

    @AfterEach
    void stop() {
        client.close();
        server.shutdownNow();
    }

    @Test
    void grpcWaitsForThePushback() {
        failures.add(error(UNAVAILABLE, "not_sent", "600"));
        long start = System.nanoTime();
        client.syncLinkage(REQUEST);
        long took = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
        assertEquals(2, attempts.size());
        assertTrue(took >= 550, "took " + took + " ms");
    }

    @Test
    void aCallThatTheGatewayCancelledIsSentAgain() {
        failures.add(CANCELLED.asException());
        client.syncLinkage(REQUEST);
        assertEquals(2, attempts.size());
    }

    @Test
    void aNegativePushbackForbidsARetry() {
        failures.add(error(UNAVAILABLE, "not_sent", "-1"));
        assertEquals(Outcome.NOT_SENT, failed().outcome());
        assertEquals(1, attempts.size());
    }

    @Test
    void grpcMakesFourAttemptsAtMost() {
        for (Status status : List.of(UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED, UNAVAILABLE)) {
            failures.add(error(status, "not_sent", "1"));
        }
        assertEquals(Outcome.NOT_SENT, failed().outcome());
        assertEquals(4, attempts.size());
    }

    @Test
    void notSentAfterALostAttemptIsUnknown() {
        failures.add(UNAVAILABLE.withDescription("connection lost").asException());
        failures.add(error(RESOURCE_EXHAUSTED, "not_sent", "-1"));
        assertEquals(Outcome.UNKNOWN, failed().outcome());
        assertEquals(2, attempts.size());
    }

    @Test
    void notSentAfterAnUnknownAttemptIsUnknown() {
        failures.add(error(UNAVAILABLE, "unknown", "1"));
        failures.add(error(RESOURCE_EXHAUSTED, "not_sent", "-1"));
        assertEquals(Outcome.UNKNOWN, failed().outcome());
    }

    @Test
    void rejectedAfterAnUnknownAttemptIsRejected() {
        failures.add(error(UNAVAILABLE, "unknown", "1"));
        failures.add(error(Status.NOT_FOUND, "rejected", "-1"));
        assertEquals(Outcome.REJECTED, failed().outcome());
    }

    @Test
    void aRefusedConnectionIsUnknown() throws InterruptedException {
        server.shutdownNow().awaitTermination();
        LinkageException error = failed();
        assertEquals(Status.Code.UNAVAILABLE, error.code());
        assertEquals(Outcome.UNKNOWN, error.outcome());
        assertEquals(Retry.SAME_REQUEST_ID, error.retry());
        assertEquals(0, attempts.size());
    }

    @Test
    void aRestartedGatewayIsReconnectedImmediately() throws Exception {
        int port = server.getPort();
        client.syncLinkage(REQUEST);
        server.shutdownNow().awaitTermination();
        for (int call = 0; call < 4; call++) {
            failed();
        }
        // By now gRPC's backoff is several seconds, longer than all attempts of one call take.
        server = Grpc.newServerBuilderForPort(port, InsecureServerCredentials.create())
                .addService(new Scripted())
                .build()
                .start();
        client.syncLinkage(REQUEST);
    }

    @Test
    void theDefaultDeadlineIsTenSeconds() {
        client.syncLinkage(REQUEST);
        client.syncLinkage(REQUEST, CallSettings.DEFAULT.withDeadline(Duration.ofSeconds(3)));
        assertBetween(8_000, 10_000, millisLeft.remove());
        assertBetween(1_000, 3_000, millisLeft.remove());
    }

    @Test
    void metadataIsSent() {
        String parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        client.syncLinkage(
                REQUEST,
                CallSettings.DEFAULT
                        .withMetadata("traceparent", parent)
                        .withMetadata("x-request-id", "r-1"));
        Metadata seen = attempts.remove();
        assertEquals(parent, seen.get(Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER)));
        assertEquals("r-1", seen.get(Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER)));
    }

    @ParameterizedTest
    @ValueSource(strings = {"會員", "line\nbreak", "tab\t", "\u0000", "é"})
    void metadataThatCannotBeSentIsRefused(String value) {
        CallSettings settings = CallSettings.DEFAULT.withMetadata("x-request-id", value);
        assertThrows(IllegalArgumentException.class, () -> client.syncLinkage(REQUEST, settings));
        assertEquals(0, attempts.size());
    }

    @Test
    void aDeadlineCenturiesAwayIsAccepted() {
        Duration centuries = Duration.ofSeconds(Long.MAX_VALUE);
        client.syncLinkage(REQUEST, CallSettings.DEFAULT.withDeadline(centuries));
        assertBetween(3_600_000, 86_400_000, millisLeft.remove());
    }

    @Test
    void detailsCanBeLong() {
        Throwable error = error(UNAVAILABLE, "not_sent", "-1");
        Metadata trailers = Status.trailersFromThrowable(error);
        trailers.put(Metadata.Key.of("x-long", Metadata.ASCII_STRING_MARSHALLER), "x".repeat(10_000));
        failures.add(error);
        assertEquals(Outcome.NOT_SENT, failed().outcome());
    }

    @Test
    void aConnectionThatCannotBeMadeTimesOut() throws IOException {
        List<SocketChannel> waiting = new ArrayList<>();
        try (ServerSocket full = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            // The server does not accept these connections. With a full backlog, Linux ignores the next one.
            for (int each = 0; each < 4; each++) {
                SocketChannel channel = SocketChannel.open();
                channel.configureBlocking(false);
                channel.connect(full.getLocalSocketAddress());
                waiting.add(channel);
            }
            try (LinkageClient lost = LinkageClient.plaintext("127.0.0.1:" + full.getLocalPort())) {
                CallSettings patient = CallSettings.DEFAULT.withDeadline(Duration.ofSeconds(20));
                LinkageException error =
                        assertThrows(LinkageException.class, () -> lost.syncLinkage(REQUEST, patient));
                assertEquals(Status.Code.UNAVAILABLE, error.code());
            }
        } finally {
            for (SocketChannel channel : waiting) {
                channel.close();
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void callsAreSpreadOnlyWithASharedLedger(boolean sharedLedger) throws IOException {
        AddressList.register();
        AtomicInteger others = new AtomicInteger();
        Server other = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new Scripted() {
                    @Override
                    public void syncLinkage(SyncLinkageRequest request, StreamObserver<SyncLinkageResponse> answer) {
                        others.incrementAndGet();
                        super.syncLinkage(request, answer);
                    }
                })
                .build()
                .start();
        String target = "ipv4:127.0.0.1:" + server.getPort() + ",127.0.0.1:" + other.getPort();
        try (LinkageClient both =
                LinkageClient.builder(target).sharedLedger(sharedLedger).build()) {
            // Calls reach an address only after its connection is established.
            long start = System.nanoTime();
            for (int made = 0; made < 20 || sharedLedger && (attempts.isEmpty() || others.get() == 0); made++) {
                both.syncLinkage(REQUEST);
                assertTrue(System.nanoTime() - start < 10_000_000_000L, attempts.size() + " and " + others);
            }
            assertEquals(sharedLedger, !attempts.isEmpty() && others.get() > 0);
        } finally {
            other.shutdownNow();
        }
    }

    private LinkageException failed() {
        return assertThrows(LinkageException.class, () -> client.syncLinkage(REQUEST));
    }

    private static void assertBetween(long least, long most, long actual) {
        assertTrue(least <= actual && actual <= most, actual + " is not within " + least + " to " + most);
    }

    private static Throwable error(Status status, String outcome, String pushback) {
        Metadata trailers = LinkageExceptionTest.trailers(ErrorInfo.newBuilder()
                .setDomain("linkage.alipayhk")
                .setReason("OVERLOADED")
                .putMetadata("outcome", outcome)
                .putMetadata("retry", "same_request_id")
                .build());
        trailers.put(Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER), pushback);
        return status.asException(trailers);
    }

    /** Fails with each of the test's failures, and then succeeds. */
    private class Scripted extends LinkageServiceGrpc.LinkageServiceImplBase {
        @Override
        public void syncLinkage(SyncLinkageRequest request, StreamObserver<SyncLinkageResponse> answer) {
            Throwable failure = failures.poll();
            if (failure != null) {
                answer.onError(failure);
                return;
            }
            answer.onNext(SyncLinkageResponse.getDefaultInstance());
            answer.onCompleted();
        }
    }

    /** Records the metadata and the remaining time of each attempt. */
    private final class Recording implements ServerInterceptor {
        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            attempts.add(headers);
            millisLeft.add(Context.current().getDeadline().timeRemaining(TimeUnit.MILLISECONDS));
            return next.startCall(call, headers);
        }
    }
}
