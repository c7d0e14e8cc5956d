import { status as Code, type Metadata, type StatusObject } from "@grpc/grpc-js";

import { readDetails, waitMs, type Details } from "./details.js";

const OUTCOMES = ["not_sent", "rejected", "unknown"] as const;
const RETRIES = ["same_request_id", "new_request_id", "never", "operator"] as const;

/** What happened to a request that did not end with OK. */
export type Outcome = (typeof OUTCOMES)[number];
/** What to do next. */
export type Retry = (typeof RETRIES)[number];

/** One fault of a request. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** A call that did not end with OK. `outcome` and `retry` decide what to do; the rest is for people and logs. */
export class LinkageError extends Error {
  override readonly name = "LinkageError";

  private constructor(
    message: string,
    /** gRPC's canonical name of the status code, for example NOT_FOUND. */
    readonly code: string,
    /** Only OK or `rejected` for the same request id ends an `unknown`. */
    readonly outcome: Outcome,
    /** Why, as error_reason.proto has it; empty when the status is not the gateway's own. */
    readonly reason: string,
    readonly retry: Retry,
    /** The request id that was called with. */
    readonly requestId: string,
    /** All that ErrorInfo says, for example result_code. */
    readonly metadata: Readonly<Record<string, string>>,
    readonly violations: readonly Violation[],
    /** How long to wait before the same request is sent again; undefined where the gateway named no time. */
    readonly retryDelayMs: number | undefined,
  ) {
    super(message);
  }

  /**
   * Read what a status says. `earlierAttempts` counts the attempts that gRPC made before, unseen; by default the
   * status itself tells.
   */
  static from(
    ended: Pick<StatusObject, "code" | "details" | "metadata">,
    requestId: string,
    earlierAttempts = attemptsBefore(ended.metadata),
  ): LinkageError {
    const details = readDetails(ended.metadata);
    const code = Code[ended.code] ?? "UNKNOWN";
    const reason = details?.info.reason ?? "";
    const retry = retryOf(details);
    return new LinkageError(
      `${[code, reason].filter(Boolean).join(" ")}: ${ended.details}`,
      code,
      outcomeOf(details, retry, earlierAttempts),
      reason,
      retry,
      requestId,
      { ...details?.info.metadata },
      (details?.badRequest?.fieldViolations ?? []).map(({ field, description }) => ({ field, description })),
      waitMs(details, ended.metadata),
    );
  }
}

/** How many attempts gRPC says that it made before the one that this metadata belongs to. */
export function attemptsBefore(metadata: Metadata): number {
  return Number(metadata.get("grpc-previous-rpc-attempts")[0] ?? 0);
}

function outcomeOf(details: Details | undefined, retry: Retry, earlierAttempts: number): Outcome {
  const told = OUTCOMES.find((outcome) => outcome === details?.info.metadata["outcome"]) ?? "unknown";
  // `not_sent` is said of one attempt, and may be said before the ledger is read (overload, too little time). When an
  // earlier attempt may have been sent, it takes nothing back. Where the request itself is at fault it holds for all.
  const ofThisAttemptOnly = retry === "same_request_id" || retry === "operator";
  return told === "not_sent" && ofThisAttemptOnly && earlierAttempts > 0 ? "unknown" : told;
}

function retryOf(details: Details | undefined): Retry {
  if (details === undefined) return "same_request_id"; // Asking again is how one finds out.
  // A word that is newer than this package is for a person.
  return RETRIES.find((retry) => retry === details.info.metadata["retry"]) ?? "operator";
}
