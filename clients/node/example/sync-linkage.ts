// Makes one SyncLinkage call: node build/example/sync-linkage.js TARGET USER_ID
import { randomUUID } from "node:crypto";

import { BindingTargetType, ExternalIdentityType, LinkageClient, LinkageError, OperateType } from "alipayhk-linkage";

const [target, userId] = process.argv.slice(2);
if (target === undefined || userId === undefined) {
  console.error("usage: sync-linkage TARGET USER_ID");
  process.exit(64);
}

const client = new LinkageClient(target);
try {
  const id = `node-example-${randomUUID()}`;
  await client.syncLinkage({
    requestId: id,
    bizTime: new Date(),
    operateType: OperateType.OPERATE_TYPE_BIND,
    externalIdentityType: ExternalIdentityType.EXTERNAL_IDENTITY_TYPE_UID,
    externalIdentityValue: id,
    userId,
    bindingTargetType: BindingTargetType.BINDING_TARGET_TYPE_USER_ID,
  });
  console.log("OK");
} catch (error) {
  if (!(error instanceof LinkageError)) throw error;
  console.log(error.outcome, error.reason, error.retry);
  process.exitCode = 1;
} finally {
  client.close();
}
