import assert from "node:assert/strict";
import { appendFileSync, existsSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { BindingTargetType, ExternalIdentityType, LinkageClient, LinkageError, OperateType } from "alipayhk-linkage";

import { clientOptions, required } from "./environment.js";

const WORKERS = 8;
const DEADLINE_MS = Number(process.env["LINKAGE_DEADLINE_S"] ?? 3) * 1000;
const USER = "2160000000000001";
// With a shared ledger no call may fail, so gRPC must retry; rejected calls use up its retry allowance.
const REJECTED = clientOptions().sharedLedger ? [] : [`${USER}+USER_NOT_EXIST`];
const USERS = [USER, `${USER}+DELAY_20`, `${USER}+DELAY_300`, ...REJECTED];
// The gateway is up only for short times. The client must reconnect fast, so that some calls succeed.
const RECONNECT = { "grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 200 };
// Without a connection, calls fail immediately. The pause prevents a busy loop.
const PAUSE_MS = 20;

test("storm", async () => {
  const run = required("LINKAGE_RUN");
  const results = required("LINKAGE_RESULTS");
  const until = Date.now() + Number(required("LINKAGE_STORM_S")) * 1000;
  const client = new LinkageClient(required("LINKAGE_TARGET"), { ...clientOptions(), channel: RECONNECT });
  let made = 0;
  let ok = 0;

  async function work(): Promise<void> {
    while (Date.now() < until && !existsSync(`${results}.stop`)) {
      const n = made++;
      const line = await callOnce(client, `${run}-storm-${n}`, n);
      appendFileSync(results, `${JSON.stringify(line)}\n`);
      if (line.code === "OK") ok++;
      else await sleep(PAUSE_MS);
    }
  }

  try {
    await Promise.all(Array.from({ length: WORKERS }, work));
  } finally {
    client.close();
  }
  assert.ok(made > 0, "no calls were made");
  assert.ok(ok > 0, `no call of ${made} returned OK`);
});

interface Line {
  method: string;
  request_id: string;
  code: string;
  reason: string;
  outcome: string;
}

async function callOnce(client: LinkageClient, id: string, n: number): Promise<Line> {
  const sync = n % 2 === 0;
  const line = { method: sync ? "SyncLinkage" : "BindAccount", request_id: id };
  // Every user id is used with both methods.
  const userId = USERS[Math.floor(n / 2) % USERS.length]!;
  try {
    await (sync ? syncLinkage(client, id, userId) : bindAccount(client, id, userId));
    return { ...line, code: "OK", reason: "", outcome: "OK" };
  } catch (error) {
    if (!(error instanceof LinkageError)) throw error;
    return { ...line, code: error.code, reason: error.reason, outcome: error.outcome };
  }
}

function syncLinkage(client: LinkageClient, id: string, userId: string) {
  return client.syncLinkage(
    {
      requestId: id,
      bizTime: new Date(),
      operateType: OperateType.OPERATE_TYPE_BIND,
      externalIdentityType: ExternalIdentityType.EXTERNAL_IDENTITY_TYPE_UID,
      externalIdentityValue: id,
      userId,
      bindingTargetType: BindingTargetType.BINDING_TARGET_TYPE_USER_ID,
    },
    { deadlineMs: DEADLINE_MS },
  );
}

function bindAccount(client: LinkageClient, id: string, userId: string) {
  return client.bindAccount(
    {
      requestId: id,
      merchantAccountId: "2160400000002012",
      type: "TELECOM",
      subType: "MOBILE_SERVICE",
      account: { $case: "accountId", value: id },
      userId,
      timestamp: new Date(),
    },
    { deadlineMs: DEADLINE_MS },
  );
}
