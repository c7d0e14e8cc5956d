package hk.alipay.linkage;

import com.google.protobuf.Timestamp;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Instant;

/** The gateway and the sandbox that the tests are told of by environment variables. */
final class Surroundings {

    private Surroundings() {}

    /** Returns a variable, and fails the test where it is not set: nothing is skipped in silence. */
    static String required(String variable) {
        String value = System.getenv(variable);
        if (value == null || value.isEmpty()) {
            throw new AssertionError(
                    "The environment variable " + variable + " is not set; see docs/clients/java.md.");
        }
        return value;
    }

    /** Connects by mTLS where the three files are named, and in plaintext where none is. */
    static LinkageClient client() throws IOException {
        String target = required("LINKAGE_TARGET");
        if (System.getenv("LINKAGE_CA_FILE") == null
                && System.getenv("LINKAGE_CERT_FILE") == null
                && System.getenv("LINKAGE_KEY_FILE") == null) {
            return LinkageClient.plaintext(target);
        }
        return LinkageClient.mutualTls(
                target,
                Path.of(required("LINKAGE_CA_FILE")),
                Path.of(required("LINKAGE_CERT_FILE")),
                Path.of(required("LINKAGE_KEY_FILE")));
    }

    static Timestamp now() {
        Instant now = Instant.now();
        return Timestamp.newBuilder().setSeconds(now.getEpochSecond()).setNanos(now.getNano()).build();
    }
}
