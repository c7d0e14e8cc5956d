import type { Metadata } from "@grpc/grpc-js";

import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

const DOMAIN = "linkage.alipayhk";

/** The details of a status from the gateway. */
export interface Details {
  readonly info: ErrorInfo;
  readonly badRequest: BadRequest | undefined;
  readonly retryInfo: RetryInfo | undefined;
}

/** Returns the details of a status; undefined unless all can be parsed and exactly one ErrorInfo is the gateway's. */
export function readDetails(trailers: Metadata): Details | undefined {
  const values = trailers.get("grpc-status-details-bin");
  const [bytes] = values;
  if (values.length !== 1 || !Buffer.isBuffer(bytes)) return undefined;
  try {
    return detailsOf(Status.decode(bytes));
  } catch {
    return undefined; // If one detail is malformed, no detail is used.
  }
}

function detailsOf(status: Status): Details | undefined {
  const every = <T>(name: string, type: { decode(bytes: Uint8Array): T }): T[] =>
    status.details.filter((any) => any.typeUrl.endsWith(`/google.rpc.${name}`)).map((any) => type.decode(any.value));

  const [info, ...more] = every("ErrorInfo", ErrorInfo).filter((each) => each.domain === DOMAIN);
  if (info === undefined || more.length > 0) return undefined;
  return { info, badRequest: every("BadRequest", BadRequest)[0], retryInfo: every("RetryInfo", RetryInfo)[0] };
}

/** Returns the wait that the gateway names, in milliseconds; undefined if it names none or the pushback is -1. */
export function waitMs(details: Details | undefined, trailers: Metadata): number | undefined {
  const delay = details?.retryInfo?.retryDelay;
  if (delay !== undefined) return delay.seconds * 1000 + Math.round(delay.nanos / 1_000_000);
  const [pushback] = trailers.get("grpc-retry-pushback-ms");
  return typeof pushback === "string" && /^\d{1,9}$/.test(pushback) ? Number(pushback) : undefined;
}
