package hk.alipay.linkage;

import com.google.protobuf.Timestamp;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;

/** The environment variables with the addresses of the gateway and the sandbox. */
final class Environment {

    private Environment() {}

    /** Returns a variable. If it is not set, the test fails, because a skipped test can go unnoticed. */
    static String required(String variable) {
        String value = System.getenv(variable);
        if (value == null || value.isEmpty()) {
            throw new AssertionError(
                    "The environment variable " + variable + " is not set; see docs/clients/java.md.");
        }
        return value;
    }

    /** Returns a client with mTLS if the three files are named, or with plaintext if no file is named. */
    static LinkageClient client() throws IOException {
        AddressList.register();
        LinkageClient.Builder builder = LinkageClient.builder(required("LINKAGE_TARGET"))
                .sharedLedger(sharedLedger());
        if (System.getenv("LINKAGE_CA_FILE") == null
                && System.getenv("LINKAGE_CERT_FILE") == null
                && System.getenv("LINKAGE_KEY_FILE") == null) {
            return builder.build();
        }
        return builder.mutualTls(
                        Path.of(required("LINKAGE_CA_FILE")),
                        Path.of(required("LINKAGE_CERT_FILE")),
                        Path.of(required("LINKAGE_KEY_FILE")))
                .build();
    }

    /** Returns whether the target has several gateways with one ledger. */
    static boolean sharedLedger() {
        return System.getenv("LINKAGE_SHARED_LEDGER") != null;
    }

    /** Returns the duration of a variable in seconds. */
    static Duration seconds(String variable, String byDefault) {
        double seconds = Double.parseDouble(System.getenv().getOrDefault(variable, byDefault));
        return Duration.ofNanos((long) (seconds * 1e9));
    }

    static Timestamp now() {
        Instant now = Instant.now();
        return Timestamp.newBuilder().setSeconds(now.getEpochSecond()).setNanos(now.getNano()).build();
    }
}
