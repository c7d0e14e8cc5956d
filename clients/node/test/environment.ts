import { readFileSync } from "node:fs";

import type { LinkageClientOptions } from "alipayhk-linkage";

/** Returns an environment variable. Throws if it is not set, so that the test fails and is not skipped. */
export function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: this test needs a running gateway and sandbox, see docs/clients/node.md`);
  return value;
}

/** Returns the client's options from the environment; without TLS if no file is named. */
export function clientOptions(): LinkageClientOptions {
  const sharedLedger = process.env["LINKAGE_SHARED_LEDGER"] !== undefined;
  const names = ["LINKAGE_CA_FILE", "LINKAGE_CERT_FILE", "LINKAGE_KEY_FILE"];
  if (names.every((name) => !process.env[name])) return { sharedLedger };
  const [ca, cert, key] = names.map((name) => readFileSync(required(name))) as [Buffer, Buffer, Buffer];
  return { sharedLedger, tls: { ca, cert, key } };
}
