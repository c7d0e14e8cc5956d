import assert from "node:assert/strict";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { pipeline } from "node:stream";
import { test } from "node:test";

import { status as Code } from "@grpc/grpc-js";

import { LinkageClient, LinkageError, type CallOptions } from "alipayhk-linkage";

import { StandIn, trailers, type Answer } from "./gateway.js";

const OVERLOADED = trailers({ outcome: "not_sent", retry: "same_request_id" }, { pushbackMs: "300" });
const NEVER = trailers({ outcome: "unknown", retry: "operator" }, { pushbackMs: "-1" });
const LOST: Answer = { code: Code.UNAVAILABLE };

async function call(answers: Answer[], options: CallOptions = {}) {
  const standIn = new StandIn(answers);
  const client = new LinkageClient(await standIn.listen());
  try {
    const result = await client.syncLinkage({ requestId: "loyalty-1" }, options).catch((error: unknown) => error);
    return { result, error: result as LinkageError, arrived: standIn.arrived };
  } finally {
    client.close();
    standIn.close();
  }
}

test("gRPC waits for the pushback, then sends the same request again", async () => {
  const { result, arrived } = await call([{ code: Code.RESOURCE_EXHAUSTED, trailers: OVERLOADED }, "OK"]);
  assert.ok(!(result instanceof Error));
  assert.equal(arrived.length, 2);
  assert.ok(arrived[1]!.at - arrived[0]!.at >= 290, "the wait is at least 300 ms");
});

test("a pushback of -1 forbids a further attempt, whatever the code", async () => {
  const { error, arrived } = await call([{ code: Code.UNAVAILABLE, trailers: NEVER }]);
  assert.deepEqual([error.code, error.outcome, error.retry, arrived.length], ["UNAVAILABLE", "unknown", "operator", 1]);
});

test("a call that the gateway cancelled is sent again", async () => {
  const { result, arrived } = await call([{ code: Code.CANCELLED }, "OK"]);
  assert.ok(!(result instanceof Error));
  assert.equal(arrived.length, 2);
});

test("a code that is not in the policy is not retried", async () => {
  const { error, arrived } = await call([{ code: Code.UNKNOWN }]);
  assert.deepEqual([error.code, error.outcome, arrived.length], ["UNKNOWN", "unknown", 1]);
});

test("after four attempts the call fails with the last status", async () => {
  const { error, arrived } = await call([LOST]);
  assert.deepEqual([error.code, error.outcome, error.retry, arrived.length], ["UNAVAILABLE", "unknown", "same_request_id", 4]);
});

for (const headersFirst of [false, true]) {
  test(`not_sent does not hide a lost attempt (${headersFirst ? "headers, then trailers" : "trailers only"})`, async () => {
    const tooLate = trailers({ outcome: "not_sent", retry: "same_request_id" }, { reason: "DEADLINE_TOO_SHORT" });
    const last: Answer = { code: Code.DEADLINE_EXCEEDED, trailers: tooLate, headersFirst };
    const alone = await call([last]);
    assert.deepEqual([alone.error.reason, alone.error.outcome], ["DEADLINE_TOO_SHORT", "not_sent"]);
    const afterLost = await call([LOST, last]);
    assert.deepEqual([afterLost.error.reason, afterLost.error.outcome], ["DEADLINE_TOO_SHORT", "unknown"]);
    assert.equal(afterLost.arrived.length, 2);
  });
}

test("the deadline covers all attempts together, and then the outcome is unknown", async () => {
  const start = performance.now();
  const { error, arrived } = await call([LOST, "nothing"], { deadlineMs: 400 });
  assert.deepEqual([error.code, error.outcome, error.reason], ["DEADLINE_EXCEEDED", "unknown", ""]);
  assert.ok(performance.now() - start < 1500);
  assert.equal(arrived.length, 2);
});

test("the default deadline is 10 s", async () => {
  const before = Date.now();
  const { arrived } = await call(["OK"]);
  const left = Number(arrived[0]!.deadline) - before;
  assert.ok(left > 8_000 && left < 12_000, `${left} ms`);
});

test("a deadline of NaN is refused, and an infinite deadline is accepted", async () => {
  const { result, arrived } = await call(["OK"], { deadlineMs: NaN });
  assert.ok(result instanceof RangeError);
  assert.equal(arrived.length, 0);
  for (const deadlineMs of [Infinity, Number.MAX_VALUE]) assert.ok(!((await call(["OK"], { deadlineMs })).result instanceof Error));
});

test("metadata is sent", async () => {
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const { arrived } = await call(["OK"], { metadata: { traceparent, "x-request-id": "r-1" } });
  const { metadata } = arrived[0]!;
  assert.deepEqual([metadata.get("traceparent"), metadata.get("x-request-id")], [[traceparent], ["r-1"]]);
});

test("a header that HTTP/2 forbids is refused, and nothing is sent", async () => {
  for (const name of ["connection", "Keep-Alive", "te", "upgrade", "http2-settings"]) {
    const { result, arrived } = await call(["OK"], { metadata: { [name]: "x" }, deadlineMs: 1000 });
    assert.ok(result instanceof TypeError, name);
    assert.equal(arrived.length, 0);
  }
});

test("a connection that does not finish its handshake is replaced", async () => {
  const standIn = new StandIn(["OK"]);
  const port = Number((await standIn.listen()).split(":")[1]);
  const sockets: Socket[] = [];
  const relay = createServer((socket) => {
    // The relay accepts the first connection and never sends anything on it.
    if (sockets.push(socket) > 1) pipeline(socket, connect(port, "127.0.0.1"), socket, () => {});
  });
  await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
  const client = new LinkageClient(`127.0.0.1:${(relay.address() as AddressInfo).port}`, { deadlineMs: 7000 });
  try {
    await assert.rejects(client.syncLinkage({}), { name: "LinkageError", code: "DEADLINE_EXCEEDED", outcome: "unknown" });
    await client.syncLinkage({});
    assert.equal(sockets.length, 2);
  } finally {
    client.close();
    standIn.close();
    relay.close();
    for (const socket of sockets) socket.destroy();
  }
});

test("an abort signal cancels the call, and its outcome is unknown", async () => {
  const { error, arrived } = await call(["nothing"], { signal: AbortSignal.timeout(100) });
  assert.deepEqual([error.code, error.outcome, error.requestId], ["CANCELLED", "unknown", "loyalty-1"]);
  assert.equal(arrived.length, 1);
});

test("a request that cannot be encoded is not sent, and the error quotes no field", async () => {
  const client = new LinkageClient("127.0.0.1:1");
  const secret = "85291234567" as unknown as number;
  await assert.rejects(client.syncLinkage({ operateType: secret }), (error: Error) => {
    assert.ok(error instanceof TypeError);
    assert.doesNotMatch(`${error.message}${error.stack}${String(error.cause)}`, /85291234567/);
    return true;
  });
  client.close();
});

for (const options of [{}, { sharedLedger: true }]) {
  const { sharedLedger = false } = options;
  test(`calls are ${sharedLedger ? "spread over all addresses" : "sent to one address"}`, async () => {
    const standIns = [new StandIn(["OK"]), new StandIn(["OK"])] as const;
    const target = `ipv4:${(await Promise.all(standIns.map((each) => each.listen()))).join(",")}`;
    const client = new LinkageClient(target, options);
    try {
      // Calls reach an address only after its connection is established.
      const until = Date.now() + 10_000;
      const called = () => standIns.filter((each) => each.arrived.length > 0).length;
      for (let made = 0; Date.now() < until && (made < 20 || (sharedLedger && called() < 2)); made++) await client.syncLinkage({});
      assert.equal(called(), sharedLedger ? 2 : 1);
    } finally {
      client.close();
      standIns.forEach((each) => each.close());
    }
  });
}
