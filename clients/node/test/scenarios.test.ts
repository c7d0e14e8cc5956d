import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import {
  BindAccountRequest,
  BindAccountResponse,
  LinkageClient,
  LinkageError,
  SyncLinkageRequest,
  SyncLinkageResponse,
  type CallOptions,
} from "alipayhk-linkage";

import { clientOptions, required } from "./environment.js";

const STEP = ["method", "request", "deadline_ms", "answers", "expect"];
const EXPECT = [
  ...["code", "reason", "outcome", "retry", "metadata", "violations", "response"],
  ...["took_ms_min", "took_ms_max"],
];

interface Step {
  method: string;
  request: object;
  deadline_ms?: number;
  answers?: string[];
  expect: Expect;
}

interface Expect {
  code?: string;
  reason?: string;
  outcome?: string;
  retry?: string;
  metadata?: Record<string, string>;
  violations?: string[];
  response?: object;
  took_ms_min?: number;
  took_ms_max?: number;
}

const METHODS: Record<string, (client: LinkageClient, request: object, options: CallOptions) => Promise<unknown>> = {
  SyncLinkage: async (client, request, options) =>
    SyncLinkageResponse.toJSON(await client.syncLinkage(SyncLinkageRequest.fromJSON(request), options)),
  BindAccount: async (client, request, options) =>
    BindAccountResponse.toJSON(await client.bindAccount(BindAccountRequest.fromJSON(request), options)),
};

test("scenarios", async (t) => {
  const text = readFileSync(required("LINKAGE_SCENARIOS"), "utf8").replaceAll("${run}", required("LINKAGE_RUN"));
  const { scenarios } = JSON.parse(text) as { scenarios: { name: string; steps: Step[] }[] };
  assert.ok(scenarios.length > 0, "the file must have scenarios");
  const client = new LinkageClient(required("LINKAGE_TARGET"), clientOptions());
  try {
    for (const { name, steps } of scenarios) {
      await t.test(name, async () => {
        for (const [n, step] of steps.entries()) await play(client, step, `step ${n + 1}`);
      });
    }
  } finally {
    client.close();
  }
});

async function play(client: LinkageClient, step: Step, where: string): Promise<void> {
  allKnown(step, STEP, where);
  allKnown(step.expect, EXPECT, `${where}, expect`);
  const method = METHODS[step.method];
  assert.ok(method, `${where}: unknown method ${step.method}`);
  if (step.answers) await setAnswers(step.method, step.answers);

  const start = performance.now();
  const result = await method(client, step.request, { deadlineMs: step.deadline_ms ?? 10_000 }).then(
    (response) => ({ response, error: undefined }),
    (error: unknown) => ({ response: undefined, error }),
  );
  const took = performance.now() - start;

  if (result.error === undefined) compareSuccess(result.response, step.expect, where);
  else if (result.error instanceof LinkageError) compareError(result.error, step.expect, where);
  else throw result.error;
  assert.ok(took >= (step.expect.took_ms_min ?? 0), `${where}: took only ${took} ms`);
  assert.ok(took <= (step.expect.took_ms_max ?? Infinity), `${where}: took ${took} ms`);
}

function allKnown(object: object, known: string[], where: string): void {
  const unknown = Object.keys(object).filter((key) => !known.includes(key));
  assert.deepEqual(unknown, [], `${where}: this test does not know these keys`);
}

async function setAnswers(api: string, faults: string[]): Promise<void> {
  const response = await fetch(`${required("LINKAGE_CONSOLE")}/__sandbox/answers`, {
    method: "POST",
    body: JSON.stringify({ answers: faults.map((fault) => ({ fault })), api }),
  });
  assert.equal(response.status, 200, "the sandbox must accept the answers");
}

function compareSuccess(response: unknown, expect: Expect, where: string): void {
  const { code = "OK", reason, outcome, retry, metadata, violations } = expect;
  assert.equal("OK", code, `${where}: code`);
  assert.deepEqual(
    [reason, outcome, retry, metadata, violations].filter((each) => each !== undefined),
    [],
    `${where}: these fields cannot be expected with OK`,
  );
  if (expect.response) isSubset(response, expect.response, `${where}: response`);
}

function compareError(error: LinkageError, expect: Expect, where: string): void {
  const seen = `${where}: ${error.code} ${error.reason} ${error.outcome} ${error.retry}`;
  if (expect.code !== undefined) assert.equal(error.code, expect.code, seen);
  if (expect.reason !== undefined) assert.equal(error.reason, expect.reason, seen);
  if (expect.outcome !== undefined) assert.equal(error.outcome, expect.outcome, seen);
  if (expect.retry !== undefined) assert.equal(error.retry, expect.retry, seen);
  if (expect.metadata) isSubset(error.metadata, expect.metadata, `${where}: metadata`);
  if (expect.violations) {
    const fields = new Set(error.violations.map((violation) => violation.field));
    assert.deepEqual([...fields].sort(), [...expect.violations].sort(), `${where}: violations`);
  }
  assert.equal(expect.response, undefined, `${seen}, instead of a response`);
}

function isSubset(actual: unknown, expected: unknown, where: string): void {
  if (typeof expected !== "object" || expected === null || Array.isArray(expected)) {
    assert.deepEqual(actual, expected, where);
    return;
  }
  assert.ok(typeof actual === "object" && actual !== null, `${where} is missing`);
  for (const [key, value] of Object.entries(expected)) {
    isSubset((actual as Record<string, unknown>)[key], value, `${where}.${key}`);
  }
}
