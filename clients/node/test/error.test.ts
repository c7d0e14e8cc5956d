import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Metadata, status as Code } from "@grpc/grpc-js";

import { LinkageError, RETRY_SERVICE_CONFIG, SHARED_LEDGER_SERVICE_CONFIG } from "alipayhk-linkage";
import { Status } from "#gen/google/rpc/status.js";

import { trailers, withBytes } from "./gateway.js";

function from(metadata: Metadata, earlierAttempts = 0): LinkageError {
  return LinkageError.from({ code: Code.UNAVAILABLE, details: "a sentence", metadata }, "loyalty-1", earlierAttempts);
}

const NOT_SENT = { outcome: "not_sent", retry: "same_request_id" };

test("all details of a status are read", () => {
  const metadata = { outcome: "not_sent", retry: "new_request_id", attempts: "0" };
  const error = from(trailers(metadata, { reason: "INVALID_REQUEST", waitMs: 1500, fields: ["user_id", "biz_time"] }));
  assert.deepEqual(
    { ...error, message: error.message },
    {
      name: "LinkageError",
      message: "UNAVAILABLE INVALID_REQUEST: a sentence",
      code: "UNAVAILABLE",
      outcome: "not_sent",
      reason: "INVALID_REQUEST",
      retry: "new_request_id",
      requestId: "loyalty-1",
      metadata,
      violations: [
        { field: "user_id", description: "user_id is required" },
        { field: "biz_time", description: "biz_time is required" },
      ],
      retryDelayMs: 1500,
    },
  );
});

const WITHOUT_VALID_DETAILS: [string, Metadata][] = [
  ["no details", new Metadata()],
  ["empty details", withBytes(new Uint8Array())],
  ["bytes that are not protobuf", withBytes(Uint8Array.from([0xff, 0xff, 0xff, 0xff, 0x07]))],
  ["a truncated detail", withBytes(truncated())],
  ["another domain", trailers(NOT_SENT, { domain: "example.com" })],
  ["two ErrorInfos of the gateway", doubled()],
];
for (const [name, metadata] of WITHOUT_VALID_DETAILS) {
  test(`${name}: the outcome is unknown, and retry is same_request_id`, () => {
    const { outcome, reason, retry, violations, metadata: read } = from(metadata);
    assert.deepEqual([outcome, reason, retry], ["unknown", "", "same_request_id"]);
    assert.deepEqual([violations, read], [[], {}]);
  });
}

function truncated(): Uint8Array {
  const status = Status.decode(trailers(NOT_SENT).get("grpc-status-details-bin")[0] as Buffer);
  for (const detail of status.details) detail.value = detail.value.subarray(0, -1);
  return Status.encode(status).finish();
}

function doubled(): Metadata {
  const bytes = trailers(NOT_SENT).get("grpc-status-details-bin")[0] as Buffer;
  return withBytes(Buffer.concat([bytes, bytes])); // Protobuf merges concatenated messages: their lists are joined.
}

const VALUES: [string, Record<string, string>, string, string][] = [
  ["an outcome that is not one of the three", { outcome: "perhaps", retry: "never" }, "unknown", "never"],
  ["no outcome", { retry: "operator" }, "unknown", "operator"],
  ["a retry that is not one of the four", { outcome: "rejected", retry: "tomorrow" }, "rejected", "operator"],
];
for (const [name, metadata, outcome, retry] of VALUES) {
  test(`${name} becomes the safe value`, () => {
    const error = from(trailers(metadata));
    assert.deepEqual([error.outcome, error.retry], [outcome, retry]);
  });
}

test("not_sent after an earlier attempt is unknown, unless the request is invalid", () => {
  assert.equal(from(trailers(NOT_SENT), 0).outcome, "not_sent");
  assert.equal(from(trailers(NOT_SENT), 1).outcome, "unknown");
  assert.equal(from(trailers({ outcome: "not_sent", retry: "operator" }), 1).outcome, "unknown");
  assert.equal(from(trailers({ outcome: "not_sent", retry: "new_request_id" }), 1).outcome, "not_sent");
  assert.equal(from(trailers({ outcome: "rejected", retry: "operator" }), 1).outcome, "rejected");
});

test("without RetryInfo the wait is the pushback, and -1 is no wait", () => {
  assert.equal(from(trailers(NOT_SENT, { pushbackMs: "250" })).retryDelayMs, 250);
  assert.equal(from(trailers(NOT_SENT, { pushbackMs: "-1" })).retryDelayMs, undefined);
  assert.equal(from(trailers(NOT_SENT, { pushbackMs: "soon" })).retryDelayMs, undefined);
  assert.equal(from(new Metadata()).retryDelayMs, undefined);
});

test("all languages have the same service configs", () => {
  const shared = (name: string) => JSON.parse(readFileSync(new URL(`../../../${name}`, import.meta.url), "utf8"));
  assert.deepEqual(RETRY_SERVICE_CONFIG, shared("retry_service_config.json"));
  assert.deepEqual(SHARED_LEDGER_SERVICE_CONFIG, shared("retry_service_config.shared_ledger.json"));
});
