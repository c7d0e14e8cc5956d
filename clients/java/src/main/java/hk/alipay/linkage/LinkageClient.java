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
 * Calls the gateway.
 *
 * <p>One client, made once, serves any number of threads. Nothing is connected before the first call. Both
 * RPCs throw {@link LinkageException} unless AlipayHK verifiably said success.
 *
 * <p>gRPC itself sends a request again, within its deadline, where the gateway says that this helps and
 * after the wait that it asks for. Repeating a request with its id and content is always safe.
 */
public final class LinkageClient implements AutoCloseable {

    // gRPC lets a lost channel wait up to two minutes before it connects again, and has no option for it.
    private static final Duration RECONNECT_AFTER = Duration.ofMillis(200);

    private static final int CONNECT_TIMEOUT_MILLIS = 5_000;
    // The details of a status may be larger than gRPC's 8 KiB.
    private static final int METADATA_BYTES = 16 * 1024;
    // The gateway gives no call as much.
    private static final Duration LONGEST = Duration.ofDays(1);
    private static final Pattern PRINTABLE = Pattern.compile("[ -~]*");

    private final ManagedChannel channel;
    private final LinkageServiceBlockingStub stub;
    private final AtomicLong reconnectedAt = new AtomicLong(System.nanoTime());

    private LinkageClient(String target, ChannelCredentials credentials) {
        this.channel = NettyChannelBuilder.forTarget(target, credentials)
                // Netty's own 30 s are longer than a call has.
                .withOption(ChannelOption.CONNECT_TIMEOUT_MILLIS, CONNECT_TIMEOUT_MILLIS)
                .maxInboundMetadataSize(METADATA_BYTES)
                // A connection that was dropped in silence would be used on and on, each call UNKNOWN by its
                // deadline. The gateway allows pings that are 10 s apart, also without calls.
                .keepAliveTime(20, TimeUnit.SECONDS)
                .keepAliveTimeout(5, TimeUnit.SECONDS)
                .keepAliveWithoutCalls(true)
                .defaultServiceConfig(retryServiceConfig())
                .enableRetry()
                // What callers are told must not depend on a TXT record.
                .disableServiceConfigLookUp()
                // The gateway is inside; the proxies of the environment lead outside.
                .proxyDetector(address -> null)
                .build();
        this.stub = LinkageServiceGrpc.newBlockingStub(channel);
    }

    /** Makes a client of the gateway at {@code host:port}, without TLS. */
    public static LinkageClient plaintext(String target) {
        return new LinkageClient(target, InsecureChannelCredentials.create());
    }

    /** Makes a client that trusts the CA of this PEM file. */
    public static LinkageClient tls(String target, Path caFile) throws IOException {
        return new LinkageClient(
                target, TlsChannelCredentials.newBuilder().trustManager(caFile.toFile()).build());
    }

    /** Makes a client that also shows its own certificate. All files are PEM, and the key is PKCS#8. */
    public static LinkageClient mutualTls(String target, Path caFile, Path certificateFile, Path keyFile)
            throws IOException {
        return new LinkageClient(
                target,
                TlsChannelCredentials.newBuilder()
                        .trustManager(caFile.toFile())
                        .keyManager(certificateFile.toFile(), keyFile.toFile())
                        .build());
    }

    /** Tells AlipayHK that a membership or card was bound or unbound, within ten seconds. */
    public SyncLinkageResponse syncLinkage(SyncLinkageRequest request) {
        return syncLinkage(request, CallSettings.DEFAULT);
    }

    /** Tells AlipayHK that a membership or card was bound or unbound. */
    public SyncLinkageResponse syncLinkage(SyncLinkageRequest request, CallSettings settings) {
        return call(settings, ready -> ready.syncLinkage(request));
    }

    /** Binds a bill account to a wallet user, within ten seconds. */
    public BindAccountResponse bindAccount(BindAccountRequest request) {
        return bindAccount(request, CallSettings.DEFAULT);
    }

    /** Binds a bill account to a wallet user. */
    public BindAccountResponse bindAccount(BindAccountRequest request, CallSettings settings) {
        return call(settings, ready -> ready.bindAccount(request));
    }

    /** Closes the channel. Calls under way end with {@link Outcome#UNKNOWN}. */
    @Override
    public void close() {
        channel.shutdownNow();
    }

    private <T> T call(CallSettings settings, Function<LinkageServiceBlockingStub, T> rpc) {
        connectAgainSoon();
        Attempts attempts = new Attempts();
        LinkageServiceBlockingStub ready = stub
                .withDeadlineAfter(nanosOf(settings.deadline()), TimeUnit.NANOSECONDS)
                .withInterceptors(watchedBy(attempts))
                .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers(settings)));
        try {
            return rpc.apply(ready);
        } catch (StatusRuntimeException error) {
            throw LinkageException.of(error, attempts.leaveDoubt());
        }
    }

    private void connectAgainSoon() {
        long now = System.nanoTime();
        long last = reconnectedAt.get();
        if (now - last >= RECONNECT_AFTER.toNanos()
                && channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE
                && reconnectedAt.compareAndSet(last, now)) {
            channel.resetConnectBackoff();
        }
    }

    // Of what is centuries away Duration makes no nanoseconds.
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
            // gRPC would change the value, or leave it out, and say nothing.
            if (!PRINTABLE.matcher(value).matches()) {
                throw new IllegalArgumentException("metadata is printable ASCII: " + name + " is not");
            }
            headers.put(key, value);
        });
        return headers;
    }

    private static ClientInterceptor watchedBy(Attempts attempts) {
        return new ClientInterceptor() {
            @Override
            public <Q, A> ClientCall<Q, A> interceptCall(
                    MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
                return next.newCall(method, options.withStreamTracerFactory(attempts));
            }
        };
    }

    // gRPC takes every number of it as a Double, which is what Gson makes of numbers in a Map.
    private static Map<String, ?> retryServiceConfig() {
        try (InputStream resource = LinkageClient.class.getResourceAsStream("retry_service_config.json")) {
            InputStreamReader text = new InputStreamReader(resource, StandardCharsets.UTF_8);
            return new Gson().fromJson(text, new TypeToken<Map<String, Object>>() {});
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }
}
