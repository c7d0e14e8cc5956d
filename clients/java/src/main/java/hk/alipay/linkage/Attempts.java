package hk.alipay.linkage;

import io.grpc.Attributes;
import io.grpc.ClientStreamTracer;
import io.grpc.Metadata;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Records the attempts that gRPC makes for one call. gRPC returns only the error of the last one.
 *
 * <p>For example, the first attempt loses its connection and may have taken effect, and the second one
 * gets not_sent. Then the outcome of the whole call is unknown.
 */
final class Attempts extends ClientStreamTracer.Factory {

    private final AtomicInteger inDoubt = new AtomicInteger();

    /** Returns whether an attempt had a connection and did not get not_sent. */
    boolean inDoubt() {
        return inDoubt.get() > 0;
    }

    @Override
    public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
        return new ClientStreamTracer() {
            // gRPC does not call this for an attempt without a connection, which cannot have sent anything.
            @Override
            public void streamCreated(Attributes transport, Metadata sent) {
                inDoubt.incrementAndGet();
            }

            @Override
            public void inboundTrailers(Metadata trailers) {
                if (new Details(trailers).outcome() == Outcome.NOT_SENT) {
                    inDoubt.decrementAndGet();
                }
            }
        };
    }
}
