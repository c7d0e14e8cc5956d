package hk.alipay.linkage;

import io.grpc.Attributes;
import io.grpc.ClientStreamTracer;
import io.grpc.Metadata;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Watches the attempts of one call, which gRPC's retry hides from its caller.
 *
 * <p>The last attempt may truthfully say not_sent of itself, after an earlier one was lost with its
 * connection and may have taken effect. Then the call as a whole is in doubt.
 */
final class Attempts extends ClientStreamTracer.Factory {

    private final AtomicInteger inDoubt = new AtomicInteger();

    /** Whether an attempt reached a connection, and did not come back as not_sent. */
    boolean leaveDoubt() {
        return inDoubt.get() > 0;
    }

    @Override
    public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
        return new ClientStreamTracer() {
            // Not called for an attempt that found no connection: nothing of it can have left.
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
