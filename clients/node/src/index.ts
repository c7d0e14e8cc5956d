export { LinkageClient, type CallOptions, type LinkageClientOptions, type Tls } from "./client.js";
export { LinkageError, type Outcome, type Retry, type Violation } from "./error.js";
export { RETRY_SERVICE_CONFIG, SHARED_LEDGER_SERVICE_CONFIG } from "./retry.js";
export * from "./gen/alipayhk/linkage/v1/linkage_service.js";
