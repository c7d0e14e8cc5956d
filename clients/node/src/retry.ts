/**
 * How gRPC itself repeats a call: the same policy in every language, clients/retry_service_config.json.
 *
 * Repeating is always safe here: the gateway answers a known request id from its ledger. Its trailer
 * grpc-retry-pushback-ms says how long each wait is; -1 means no other attempt within this call. Whether to
 * send the request again later is what `LinkageError.retry` says.
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
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"],
      },
    },
  ],
  retryThrottling: { maxTokens: 100, tokenRatio: 0.2 },
} as const;
