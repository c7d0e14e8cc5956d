import { readFileSync } from "node:fs";

import type { Tls } from "alipayhk-linkage";

/** What the variable says; a test that needs it fails without it, and is never skipped. */
export function needed(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: this test needs a running gateway and sandbox; docs/clients/node.md says how`);
  return value;
}

/** The files for mTLS; undefined, and so plaintext, when no variable names one. */
export function tls(): { tls?: Tls } {
  const names = ["LINKAGE_CA_FILE", "LINKAGE_CERT_FILE", "LINKAGE_KEY_FILE"];
  if (names.every((name) => !process.env[name])) return {};
  const [ca, cert, key] = names.map((name) => readFileSync(needed(name))) as [Buffer, Buffer, Buffer];
  return { tls: { ca, cert, key } };
}
