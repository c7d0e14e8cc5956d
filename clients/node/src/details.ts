import type { Metadata } from "@grpc/grpc-js";

import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

const DOMAIN = "linkage.alipayhk";

/** What the gateway says beside a status. */
export interface Details {
  readonly info: ErrorInfo;
  readonly badRequest: BadRequest | undefined;
  readonly retryInfo: RetryInfo | undefined;
}

/** Read the details of a status; undefined unless they are whole and exactly one ErrorInfo is the gateway's. */
export function readDetails(trailers: Metadata): Details | undefined {
  const values = trailers.get("grpc-status-details-bin");
  const [bytes] = values;
  if (values.length !== 1 || !Buffer.isBuffer(bytes)) return undefined;
  try {
    return ofGateway(Status.decode(bytes));
  } catch {
    return undefined; // Bytes that cannot be read say nothing, least of all half of something.
  }
}

function ofGateway(status: Status): Details | undefined {
  const every = <T>(name: string, type: { decode(bytes: Uint8Array): T }): T[] =>
    status.details.filter((any) => any.typeUrl.endsWith(`/google.rpc.${name}`)).map((any) => type.decode(any.value));

  const [info, ...more] = every("ErrorInfo", ErrorInfo).filter((each) => each.domain === DOMAIN);
  if (info === undefined || more.length > 0) return undefined;
  return { info, badRequest: every("BadRequest", BadRequest)[0], retryInfo: every("RetryInfo", RetryInfo)[0] };
}

/** The wait that the gateway asks for, in milliseconds; undefined where it names none. A pushback of -1 names none. */
export function waitMs(details: Details | undefined, trailers: Metadata): number | undefined {
  const delay = details?.retryInfo?.retryDelay;
  if (delay !== undefined) return delay.seconds * 1000 + Math.round(delay.nanos / 1_000_000);
  const [pushback] = trailers.get("grpc-retry-pushback-ms");
  return typeof pushback === "string" && /^\d{1,9}$/.test(pushback) ? Number(pushback) : undefined;
}
