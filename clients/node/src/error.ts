import { status as Code, type Metadata, type StatusObject } from "@grpc/grpc-js";

import { readDetails, waitMs, type Details } from "./details.js";

const OUTCOMES = ["not_sent", "rejected", "unknown"] as const;
const RETRIES = ["same_request_id", "new_request_id", "never", "operator"] as const;

/** The outcome of a call that did not return OK. */
export type Outcome = (typeof OUTCOMES)[number];
/** The next step for the caller. */
export type Retry = (typeof RETRIES)[number];

/** One invalid field of a request. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** A call that did not return OK. Code should decide by `outcome` and `retry`; the rest is for people and logs. */
export class LinkageError extends Error {
  override readonly name = "LinkageError";

  private constructor(
    message: string,
    /** gRPC's canonical name of the status code, for example NOT_FOUND. */
    readonly code: string,
    /** Only OK or `rejected` for the same request id resolves an `unknown`. */
    readonly outcome: Outcome,
    /** A value of ErrorReason without its prefix; empty if the status did not come from the gateway. */
    readonly reason: string,
    readonly retry: Retry,
    /** The request id of the call. */
    readonly requestId: string,
    /** The whole ErrorInfo.metadata, for example result_code. */
    readonly metadata: Readonly<Record<string, string>>,
    readonly violations: readonly Violation[],
    /** The wait before the same request is sent again, in milliseconds; undefined if the gateway named none. */
    readonly retryDelayMs: number | undefined,
  ) {
    super(message);
  }

  /**
   * Returns the LinkageError for a status. `earlierAttempts` is the number of attempts that gRPC made before the last
   * one; by default it is read from the status.
   */
  static from(
    status: Pick<StatusObject, "code" | "details" | "metadata">,
    requestId: string,
    earlierAttempts = attemptsBefore(status.metadata),
  ): LinkageError {
    const details = readDetails(status.metadata);
    const code = Code[status.code] ?? "UNKNOWN";
    const reason = details?.info.reason ?? "";
    const retry = retryOf(details);
    return new LinkageError(
      `${[code, reason].filter(Boolean).join(" ")}: ${status.details}`,
      code,
      outcomeOf(details, retry, earlierAttempts),
      reason,
      retry,
      requestId,
      { ...details?.info.metadata },
      (details?.badRequest?.fieldViolations ?? []).map(({ field, description }) => ({ field, description })),
      waitMs(details, status.metadata),
    );
  }
}

/** Returns the number of attempts that gRPC made before the one with this metadata. */
export function attemptsBefore(metadata: Metadata): number {
  return Number(metadata.get("grpc-previous-rpc-attempts")[0] ?? 0);
}

function outcomeOf(details: Details | undefined, retry: Retry, earlierAttempts: number): Outcome {
  const reported = OUTCOMES.find((outcome) => outcome === details?.info.metadata["outcome"]) ?? "unknown";
  // `not_sent` can be true only for the last attempt: the gateway can return it before it reads the ledger (overload,
  // too little time), and an earlier attempt may have been sent. If the request itself is invalid, `not_sent` is true
  // for all attempts.
  const ofThisAttemptOnly = retry === "same_request_id" || retry === "operator";
  return reported === "not_sent" && ofThisAttemptOnly && earlierAttempts > 0 ? "unknown" : reported;
}

function retryOf(details: Details | undefined): Retry {
  if (details === undefined) return "same_request_id"; // The same request again returns the outcome.
  // A value that is newer than this package needs an operator.
  return RETRIES.find((retry) => retry === details.info.metadata["retry"]) ?? "operator";
}
