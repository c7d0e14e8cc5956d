/**
 * gRPC's retry policy, which is the same in every language (clients/retry_service_config.json).
 *
 * Repeating a request with the same id and content is always safe, because the gateway recognises the id. The trailer
 * grpc-retry-pushback-ms of every error overrides the policy: it is the wait in milliseconds, or -1 for no further
 * attempt within this call. -1 does not forbid sending the request again later; see `LinkageError.retry`.
 */
export const RETRY_SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: "alipayhk.linkage.v1.LinkageService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED"],
      },
    },
  ],
  retryThrottling: { maxTokens: 100, tokenRatio: 0.2 },
} as const;

/** The same policy, for a client that spreads its calls (clients/retry_service_config.shared_ledger.json). */
export const SHARED_LEDGER_SERVICE_CONFIG = {
  ...RETRY_SERVICE_CONFIG,
  loadBalancingConfig: [{ round_robin: {} }],
} as const;
