package hk.alipay.linkage;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import hk.alipay.linkage.v1.BindAccountRequest;
import hk.alipay.linkage.v1.BindAccountResponse;
import hk.alipay.linkage.v1.LinkageServiceGrpc;
import hk.alipay.linkage.v1.LinkageServiceGrpc.LinkageServiceBlockingStub;
import hk.alipay.linkage.v1.SyncLinkageRequest;
import hk.alipay.linkage.v1.SyncLinkageResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ConnectivityState;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import java.util.regex.Pattern;

/**
 * A client of the gateway.
 *
 * <p>Create it once, and use it from any number of threads. It connects with the first call. Both RPCs throw
 * {@link LinkageException} unless AlipayHK returned success in a verified response.
 *
 * <p>gRPC sends a request again within its deadline if the gateway asks for it, after the wait that the
 * gateway names. Repeating a request with the same id and content is always safe.
 */
public final class LinkageClient implements AutoCloseable {

    // gRPC waits up to 2 minutes before it reconnects a channel, and has no option to change that.
    private static final Duration RECONNECT_AFTER = Duration.ofMillis(200);

    private static final int CONNECT_TIMEOUT_MILLIS = 5_000;
    // The details of a status can be larger than gRPC's default limit of 8 KiB.
    private static final int METADATA_BYTES = 16 * 1024;
    // The gateway shortens every deadline to less than this.
    private static final Duration LONGEST = Duration.ofDays(1);
    private static final Pattern PRINTABLE = Pattern.compile("[ -~]*");

    private final ManagedChannel channel;
    private final LinkageServiceBlockingStub stub;
    private final AtomicLong reconnectedAt = new AtomicLong(System.nanoTime());

    private LinkageClient(String target, ChannelCredentials credentials, boolean sharedLedger) {
        this.channel = NettyChannelBuilder.forTarget(target, credentials)
                // Netty's default of 30 s is longer than a call's deadline.
                .withOption(ChannelOption.CONNECT_TIMEOUT_MILLIS, CONNECT_TIMEOUT_MILLIS)
                .maxInboundMetadataSize(METADATA_BYTES)
                // Pings detect a connection that a firewall dropped silently. Otherwise it stays in use, and
                // every call ends at its deadline as UNKNOWN. The gateway allows a ping every 10 s, also
                // without calls.
                .keepAliveTime(20, TimeUnit.SECONDS)
                .keepAliveTimeout(5, TimeUnit.SECONDS)
                .keepAliveWithoutCalls(true)
                .defaultServiceConfig(serviceConfig(sharedLedger))
                .enableRetry()
                // A DNS TXT record must not change the retry policy.
                .disableServiceConfigLookUp()
                // The gateway is in the internal network. The proxies in the environment lead out of it.
                .proxyDetector(address -> null)
                .build();
        this.stub = LinkageServiceGrpc.newBlockingStub(channel);
    }

    /** Returns a client for the gateway at {@code host:port}, without TLS. */
    public static LinkageClient plaintext(String target) {
        return builder(target).build();
    }

    /** Returns a client with TLS that trusts only the CA certificates in a PEM file. */
    public static LinkageClient tls(String target, Path caFile) throws IOException {
        return builder(target).tls(caFile).build();
    }

    /** Returns a client with mutual TLS. All files are PEM, and the key is PKCS#8. */
    public static LinkageClient mutualTls(String target, Path caFile, Path certificateFile, Path keyFile)
            throws IOException {
        return builder(target).mutualTls(caFile, certificateFile, keyFile).build();
    }

    /** Returns a builder of a client for the gateway at {@code host:port}, without TLS by default. */
    public static Builder builder(String target) {
        return new Builder(target);
    }

    /** The options of a client. */
    public static final class Builder {

        private final String target;
        private ChannelCredentials credentials = InsecureChannelCredentials.create();
        private boolean sharedLedger;

        private Builder(String target) {
            this.target = target;
        }

        /** Uses TLS, and trusts only the CA certificates in a PEM file. */
        public Builder tls(Path caFile) throws IOException {
            credentials =
                    TlsChannelCredentials.newBuilder().trustManager(caFile.toFile()).build();
            return this;
        }

        /** Uses mutual TLS. All files are PEM, and the key is PKCS#8. */
        public Builder mutualTls(Path caFile, Path certificateFile, Path keyFile) throws IOException {
            credentials = TlsChannelCredentials.newBuilder()
                    .trustManager(caFile.toFile())
                    .keyManager(certificateFile.toFile(), keyFile.toFile())
                    .build();
            return this;
        }

        /**
         * Sets whether the calls are spread over all addresses of the target; false by default. Set it only if
         * the gateways at these addresses share one ledger.
         */
        public Builder sharedLedger(boolean shared) {
            sharedLedger = shared;
            return this;
        }

        /** Returns the client. */
        public LinkageClient build() {
            return new LinkageClient(target, credentials, sharedLedger);
        }
    }

    /** Notifies AlipayHK that a membership or card was bound or unbound, with a deadline of 10 seconds. */
    public SyncLinkageResponse syncLinkage(SyncLinkageRequest request) {
        return syncLinkage(request, CallSettings.DEFAULT);
    }

    /** Notifies AlipayHK that a membership or card was bound or unbound. */
    public SyncLinkageResponse syncLinkage(SyncLinkageRequest request, CallSettings settings) {
        return call(settings, ready -> ready.syncLinkage(request));
    }

    /** Binds a bill account to a wallet user, with a deadline of 10 seconds. */
    public BindAccountResponse bindAccount(BindAccountRequest request) {
        return bindAccount(request, CallSettings.DEFAULT);
    }

    /** Binds a bill account to a wallet user. */
    public BindAccountResponse bindAccount(BindAccountRequest request, CallSettings settings) {
        return call(settings, ready -> ready.bindAccount(request));
    }

    /** Closes the channel. Calls in progress fail with {@link Outcome#UNKNOWN}. */
    @Override
    public void close() {
        channel.shutdownNow();
    }

    private <T> T call(CallSettings settings, Function<LinkageServiceBlockingStub, T> rpc) {
        resetLongBackoff();
        Attempts attempts = new Attempts();
        LinkageServiceBlockingStub ready = stub
                .withDeadlineAfter(nanosOf(settings.deadline()), TimeUnit.NANOSECONDS)
                .withInterceptors(recordedBy(attempts))
                .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers(settings)));
        try {
            return rpc.apply(ready);
        } catch (StatusRuntimeException error) {
            throw LinkageException.of(error, attempts.inDoubt());
        }
    }

    private void resetLongBackoff() {
        long now = System.nanoTime();
        long last = reconnectedAt.get();
        if (now - last >= RECONNECT_AFTER.toNanos()
                && channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE
                && reconnectedAt.compareAndSet(last, now)) {
            channel.resetConnectBackoff();
        }
    }

    // Duration.toNanos overflows for durations of centuries.
    private static long nanosOf(Duration deadline) {
        if (deadline.isNegative()) {
            return 0;
        }
        return deadline.compareTo(LONGEST) < 0 ? deadline.toNanos() : LONGEST.toNanos();
    }

    private static Metadata headers(CallSettings settings) {
        Metadata headers = new Metadata();
        settings.metadata().forEach((name, value) -> {
            Metadata.Key<String> key = Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
            // gRPC would silently change or drop the value.
            if (!PRINTABLE.matcher(value).matches()) {
                throw new IllegalArgumentException("metadata must be printable ASCII: " + name);
            }
            headers.put(key, value);
        });
        return headers;
    }

    private static ClientInterceptor recordedBy(Attempts attempts) {
        return new ClientInterceptor() {
            @Override
            public <Q, A> ClientCall<Q, A> interceptCall(
                    MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
                return next.newCall(method, options.withStreamTracerFactory(attempts));
            }
        };
    }

    // gRPC requires every number to be a Double. Gson reads numbers in a Map as Double.
    private static Map<String, ?> serviceConfig(boolean sharedLedger) {
        String name = "retry_service_config" + (sharedLedger ? ".shared_ledger" : "") + ".json";
        try (InputStream resource = LinkageClient.class.getResourceAsStream(name)) {
            InputStreamReader text = new InputStreamReader(resource, StandardCharsets.UTF_8);
            return new Gson().fromJson(text, new TypeToken<Map<String, Object>>() {});
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }
}
