package hk.alipay.linkage;

import static java.nio.file.StandardOpenOption.APPEND;
import static java.nio.file.StandardOpenOption.CREATE;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import hk.alipay.linkage.v1.BindAccountRequest;
import hk.alipay.linkage.v1.BindingTargetType;
import hk.alipay.linkage.v1.ExternalIdentityType;
import hk.alipay.linkage.v1.OperateType;
import hk.alipay.linkage.v1.SyncLinkageRequest;
import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

/** Makes calls while the harness kills the gateway, and writes their results to a file. Run by name. */
class Storm {

    private static final int WORKERS = 8;
    private static final CallSettings SETTINGS =
            CallSettings.DEFAULT.withDeadline(Environment.seconds("LINKAGE_DEADLINE_S", "3"));
    private static final List<String> USERS = List.of(
            "2160000000000001", "2160000000000001+DELAY_20", "2160000000000001+DELAY_300",
            "2160000000000001+USER_NOT_EXIST");
    // With a shared ledger no call may fail, so gRPC must retry; rejected calls use up its retry allowance.
    private static final int USERS_USED = Environment.sharedLedger() ? USERS.size() - 1 : USERS.size();

    private final AtomicLong made = new AtomicLong();
    private final AtomicLong succeeded = new AtomicLong();

    @Test
    void storm() throws Exception {
        String run = Environment.required("LINKAGE_RUN");
        long duration = (long) (Double.parseDouble(Environment.required("LINKAGE_STORM_S")) * 1e9);
        Path file = Path.of(Environment.required("LINKAGE_RESULTS"));
        Path stop = Path.of(file + ".stop");
        ExecutorService workers = Executors.newFixedThreadPool(WORKERS);
        try (LinkageClient client = Environment.client();
                BufferedWriter results = Files.newBufferedWriter(file, CREATE, APPEND)) {
            long start = System.nanoTime();
            Callable<Void> work = () -> {
                while (System.nanoTime() - start < duration && Files.notExists(stop)) {
                    call(client, made.getAndIncrement(), run, results);
                }
                return null;
            };
            List<Future<Void>> all = new ArrayList<>();
            for (int worker = 0; worker < WORKERS; worker++) {
                all.add(workers.submit(work));
            }
            for (Future<Void> one : all) {
                one.get();
            }
        } finally {
            workers.shutdownNow();
        }
        assertTrue(made.get() > 0, "no call was made");
        assertTrue(succeeded.get() > 0, "no call of " + made.get() + " returned OK");
    }

    private void call(LinkageClient client, long number, String run, BufferedWriter file) throws Exception {
        String requestId = run + "-storm-" + number;
        String userId = USERS.get((int) (number / 2 % USERS_USED));
        boolean sync = number % 2 == 0;
        CallResult result = sync
                ? CallResult.of(() -> client.syncLinkage(linkage(requestId, userId), SETTINGS))
                : CallResult.of(() -> client.bindAccount(account(requestId, userId), SETTINGS));
        write(file, sync ? "SyncLinkage" : "BindAccount", requestId, result);
        if (result.code().equals("OK")) {
            succeeded.incrementAndGet();
        } else if (result.reason().isEmpty()) {
            // Without a connection, calls fail immediately. The pause prevents a busy loop.
            Thread.sleep(100);
        }
    }

    private static void write(BufferedWriter file, String method, String requestId, CallResult result)
            throws IOException {
        JsonObject line = new JsonObject();
        line.addProperty("method", method);
        line.addProperty("request_id", requestId);
        line.addProperty("code", result.code());
        line.addProperty("reason", result.reason());
        line.addProperty("outcome", result.outcome());
        synchronized (file) {
            file.write(line + "\n");
            file.flush();
        }
    }

    private static SyncLinkageRequest linkage(String requestId, String userId) {
        return SyncLinkageRequest.newBuilder()
                .setRequestId(requestId)
                .setBizTime(Environment.now())
                .setOperateType(OperateType.OPERATE_TYPE_BIND)
                .setExternalIdentityType(ExternalIdentityType.EXTERNAL_IDENTITY_TYPE_UID)
                .setExternalIdentityValue(requestId)
                .setUserId(userId)
                .setBindingTargetType(BindingTargetType.BINDING_TARGET_TYPE_USER_ID)
                .build();
    }

    private static BindAccountRequest account(String requestId, String userId) {
        return BindAccountRequest.newBuilder()
                .setRequestId(requestId)
                .setMerchantAccountId("2160400000002012")
                .setType("TELECOM")
                .setSubType("MOBILE_SERVICE")
                .setAccountId(requestId)
                .setUserId(userId)
                .setTimestamp(Environment.now())
                .build();
    }
}
