import com.google.protobuf.Timestamp;
import hk.alipay.linkage.LinkageClient;
import hk.alipay.linkage.LinkageException;
import hk.alipay.linkage.v1.BindingTargetType;
import hk.alipay.linkage.v1.ExternalIdentityType;
import hk.alipay.linkage.v1.OperateType;
import hk.alipay.linkage.v1.SyncLinkageRequest;
import java.time.Instant;
import java.util.UUID;

/** Binds one membership, and prints OK, or the error's outcome, reason and retry. */
public final class Example {

    public static void main(String[] arguments) {
        if (arguments.length != 2) {
            System.err.println("usage: Example.java HOST:PORT USER_ID");
            System.exit(2);
        }
        try (LinkageClient client = LinkageClient.plaintext(arguments[0])) {
            client.syncLinkage(bind(arguments[1]));
            System.out.println("OK");
        } catch (LinkageException error) {
            System.out.println(error.outcome() + " " + error.reason() + " " + error.retry());
            System.exit(1);
        }
    }

    private static SyncLinkageRequest bind(String userId) {
        Instant now = Instant.now();
        return SyncLinkageRequest.newBuilder()
                .setRequestId("java-example-" + UUID.randomUUID())
                .setBizTime(Timestamp.newBuilder().setSeconds(now.getEpochSecond()).setNanos(now.getNano()))
                .setOperateType(OperateType.OPERATE_TYPE_BIND)
                .setExternalIdentityType(ExternalIdentityType.EXTERNAL_IDENTITY_TYPE_UID)
                .setExternalIdentityValue("java-example")
                .setUserId(userId)
                .setBindingTargetType(BindingTargetType.BINDING_TARGET_TYPE_USER_ID)
                .build();
    }
}
