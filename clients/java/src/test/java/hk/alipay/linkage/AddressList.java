package hk.alipay.linkage;

import io.grpc.EquivalentAddressGroup;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.StatusOr;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.List;
import java.util.stream.Stream;

/** Resolves targets like {@code ipv4:127.0.0.1:1,127.0.0.1:2}, which other gRPC libraries resolve without this. */
final class AddressList extends NameResolverProvider {

    static void register() {
        NameResolverRegistry.getDefaultRegistry().register(new AddressList());
    }

    @Override
    public NameResolver newNameResolver(URI target, NameResolver.Args args) {
        List<EquivalentAddressGroup> addresses = Stream.of(target.getSchemeSpecificPart().split(","))
                .map(address -> address.split(":"))
                .map(parts -> new InetSocketAddress(parts[0], Integer.parseInt(parts[1])))
                .map(EquivalentAddressGroup::new)
                .toList();
        return new NameResolver() {
            @Override
            public void start(Listener2 listener) {
                listener.onResult(ResolutionResult.newBuilder()
                        .setAddressesOrError(StatusOr.fromValue(addresses))
                        .build());
            }

            @Override
            public String getServiceAuthority() {
                return "gateways";
            }

            @Override
            public void shutdown() {}
        };
    }

    @Override
    public String getDefaultScheme() {
        return "ipv4";
    }

    @Override
    protected boolean isAvailable() {
        return true;
    }

    @Override
    protected int priority() {
        return 5;
    }
}
