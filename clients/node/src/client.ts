import {
  Client,
  connectivityState,
  credentials,
  Metadata,
  type ChannelCredentials,
  type ChannelOptions,
  type ClientUnaryCall,
  type MethodDefinition,
} from "@grpc/grpc-js";

import { attemptsBefore, LinkageError } from "./error.js";
import {
  BindAccountRequest,
  LinkageServiceService as methods,
  SyncLinkageRequest,
  type BindAccountResponse,
  type DeepPartial,
  type SyncLinkageResponse,
} from "./gen/alipayhk/linkage/v1/linkage_service.js";
import { RETRY_SERVICE_CONFIG, SHARED_LEDGER_SERVICE_CONFIG } from "./retry.js";

/** PEM certificates and keys. Without `ca`, the system's CAs are trusted. `cert` and `key` together enable mTLS. */
export interface Tls {
  readonly ca?: Buffer | string;
  readonly cert?: Buffer | string;
  readonly key?: Buffer | string;
}

export interface LinkageClientOptions {
  /** The TLS settings; plaintext if absent. */
  readonly tls?: Tls;
  /** The default timeout of a call in milliseconds; 10 s if absent. */
  readonly deadlineMs?: number;
  /** Spreads the calls over all addresses of the target. Set it only if the gateways at these addresses share one ledger. */
  readonly sharedLedger?: boolean;
  /** Channel options of @grpc/grpc-js, which override the options set here. */
  readonly channel?: ChannelOptions;
}

export interface CallOptions {
  /** The timeout of the call in milliseconds, for all attempts together. */
  readonly deadlineMs?: number;
  /** Metadata to send, for example `traceparent` and `x-request-id`. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Cancels the call. The request may have been sent already, so the outcome is `unknown`. */
  readonly signal?: AbortSignal;
}

const DEADLINE_MS = 10_000;
/** The longest timeout, one day. The gateway shortens every deadline to less than this. */
const LONGEST_MS = 86_400_000;
/** The timeout of a connection attempt, handshakes included. */
const CONNECT_MS = 5_000;
/** Headers that HTTP/2 forbids. gRPC would repeat a call with such a header until its deadline. */
const FORBIDDEN = /^(connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|te)$/i;

const CHANNEL: ChannelOptions = {
  "grpc.service_config_disable_resolution": 1, // A DNS TXT record must not change the retry policy.
  "grpc.enable_retries": 1,
  "grpc.enable_http_proxy": 0, // The gateway is in the internal network. The proxies in the environment lead out of it.
  // gRPC's default maximum of 2 minutes delays callers long after the gateway has recovered.
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 5_000,
  // Pings detect a connection that a firewall dropped silently. Otherwise it stays in use, and every call ends at its
  // deadline with the outcome `unknown`. The gateway allows a ping every 10 s, also without calls.
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.use_local_subchannel_pool": 1, // A new channel must not wait for the connection of the channel that it replaces.
};

/**
 * A client of the gateway. It has one connection, or one for each address with `sharedLedger`. It connects with the first
 * call, and reconnects after a failure.
 */
export class LinkageClient {
  readonly #connect: () => Client;
  readonly #deadlineMs: number;
  #client: Client;
  #connectingSince: number | undefined;

  /** @param target The gateway's `host:port`. */
  constructor(target: string, options: LinkageClientOptions = {}) {
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    const config = options.sharedLedger ? SHARED_LEDGER_SERVICE_CONFIG : RETRY_SERVICE_CONFIG;
    const channel = { ...CHANNEL, "grpc.service_config": JSON.stringify(config), ...options.channel };
    this.#connect = () => new Client(target, channelCredentials(options.tls), channel);
    this.#client = this.#watched(this.#connect());
  }

  /** Notifies AlipayHK that a membership or card was bound or unbound. Rejects with LinkageError. */
  async syncLinkage(request: DeepPartial<SyncLinkageRequest>, options?: CallOptions): Promise<SyncLinkageResponse> {
    return this.#call(methods.syncLinkage, SyncLinkageRequest.fromPartial(request), options);
  }

  /** Binds a bill account to a wallet user. Rejects with LinkageError. */
  async bindAccount(request: DeepPartial<BindAccountRequest>, options?: CallOptions): Promise<BindAccountResponse> {
    return this.#call(methods.bindAccount, BindAccountRequest.fromPartial(request), options);
  }

  /** Closes the connection after the calls in progress have finished. */
  close(): void {
    this.#client.close();
  }

  /** Returns the channel. Replaces it if it has been connecting for too long: gRPC has no timeout for a handshake. */
  #connected(): Client {
    if (this.#connectingSince !== undefined && performance.now() - this.#connectingSince > CONNECT_MS) {
      this.#connectingSince = undefined;
      this.#client.close();
      this.#client = this.#watched(this.#connect());
    }
    return this.#client;
  }

  #watched(client: Client): Client {
    const channel = client.getChannel();
    const check = () => {
      const state = channel.getConnectivityState(false);
      if (state === connectivityState.SHUTDOWN) return;
      if (state === connectivityState.READY || state === connectivityState.IDLE) this.#connectingSince = undefined;
      else this.#connectingSince ??= performance.now();
      channel.watchConnectivityState(state, Infinity, check);
    };
    check();
    return client;
  }

  #call<Request extends { requestId: string }, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    { deadlineMs = this.#deadlineMs, metadata = {}, signal }: CallOptions = {},
  ): Promise<Response> {
    signal?.throwIfAborted();
    // For NaN, and for deadlines centuries away, gRPC throws an exception that cannot be caught and ends the process.
    if (Number.isNaN(deadlineMs)) throw new RangeError("deadlineMs must be a number of milliseconds, not NaN");
    const bytes = encode(method, request);
    return new Promise((resolve, reject) => {
      let earlierAttempts = 0;
      const call: ClientUnaryCall = this.#connected().makeUnaryRequest(
        method.path,
        (encoded: Buffer) => encoded,
        method.responseDeserialize,
        bytes,
        headers(metadata),
        { deadline: Date.now() + Math.min(deadlineMs, LONGEST_MS) },
        (error, response) => {
          signal?.removeEventListener("abort", cancel);
          if (error === null) return resolve(response!);
          reject(LinkageError.from(error, request.requestId, Math.max(earlierAttempts, attemptsBefore(error.metadata))));
        },
      );
      const cancel = () => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
      // gRPC puts the number of earlier attempts into the headers of the last response, or into its trailers if it has
      // no headers.
      call.on("metadata", (received: Metadata) => (earlierAttempts = attemptsBefore(received)));
    });
  }
}

function channelCredentials(tls: Tls | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  const pem = (text: Buffer | string | undefined) => (text === undefined ? null : Buffer.from(text));
  return credentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert));
}

function headers(entries: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(entries)) {
    if (FORBIDDEN.test(name)) throw new TypeError(`HTTP/2 forbids the header ${name}`);
    metadata.set(name, value);
  }
  return metadata;
}

/** Encodes the request before the call, so that nothing is sent if it is invalid, and no error quotes its fields. */
function encode<Request>(method: { requestSerialize(value: Request): Buffer }, request: Request): Buffer {
  try {
    return method.requestSerialize(request);
  } catch {
    throw new TypeError("the request cannot be encoded: a field has a value of the wrong type");
  }
}
