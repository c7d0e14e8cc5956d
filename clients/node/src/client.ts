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
import { RETRY_SERVICE_CONFIG } from "./retry.js";

/** PEM. `{}` trusts the system's CAs; `cert` and `key` together are mTLS. */
export interface Tls {
  readonly ca?: Buffer | string;
  readonly cert?: Buffer | string;
  readonly key?: Buffer | string;
}

export interface LinkageClientOptions {
  /** Absent: plaintext. */
  readonly tls?: Tls;
  /** The deadline of a call that names none; 10 s by default. */
  readonly deadlineMs?: number;
  /** Options of @grpc/grpc-js that go before the ones set here. */
  readonly channel?: ChannelOptions;
}

export interface CallOptions {
  /** From now, all attempts together. */
  readonly deadlineMs?: number;
  /** Sent along, for example `traceparent` and `x-request-id`. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Ends the wait, not the request: what has been sent stays sent, so the outcome is `unknown`. */
  readonly signal?: AbortSignal;
}

const DEADLINE_MS = 10_000;
/** A day; the gateway gives no call as much. */
const LONGEST_MS = 86_400_000;
/** How long a connection, with its handshakes, may take to come about. */
const CONNECT_MS = 5_000;
/** HTTP/2 forbids them; gRPC would try one again and again until the deadline. */
const FORBIDDEN = /^(connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|te)$/i;

const CHANNEL: ChannelOptions = {
  "grpc.service_config": JSON.stringify(RETRY_SERVICE_CONFIG),
  "grpc.service_config_disable_resolution": 1, // The policy is ours, not what DNS may say.
  "grpc.enable_retries": 1,
  "grpc.enable_http_proxy": 0, // The gateway is internal; the environment's proxy leads elsewhere.
  // gRPC's own two minutes would keep a caller away long after the gateway is back.
  "grpc.initial_reconnect_backoff_ms": 200,
  "grpc.max_reconnect_backoff_ms": 5_000,
  // A connection that was dropped in silence would be used on and on, each call `unknown` by its deadline. The gateway
  // allows pings that are 10 s apart, also without calls.
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.use_local_subchannel_pool": 1, // A new channel must not wait for the connection of the one that it replaces.
};

/** Calls the gateway over one connection, which it opens when needed and opens again when lost. */
export class LinkageClient {
  readonly #connect: () => Client;
  readonly #deadlineMs: number;
  #client: Client;
  #connectingSince: number | undefined;

  /** @param target `host:port` */
  constructor(target: string, options: LinkageClientOptions = {}) {
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    this.#connect = () => new Client(target, channelCredentials(options.tls), { ...CHANNEL, ...options.channel });
    this.#client = this.#watched(this.#connect());
  }

  /** Tell AlipayHK that a membership or card was bound or unbound. Rejects with LinkageError. */
  async syncLinkage(request: DeepPartial<SyncLinkageRequest>, options?: CallOptions): Promise<SyncLinkageResponse> {
    return this.#call(methods.syncLinkage, SyncLinkageRequest.fromPartial(request), options);
  }

  /** Bind a bill account to a wallet user. Rejects with LinkageError. */
  async bindAccount(request: DeepPartial<BindAccountRequest>, options?: CallOptions): Promise<BindAccountResponse> {
    return this.#call(methods.bindAccount, BindAccountRequest.fromPartial(request), options);
  }

  /** Close the connection, once no call is under way. */
  close(): void {
    this.#client.close();
  }

  /** The channel; a new one where gRPC, which waits for a handshake without end, has tried to connect for too long. */
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
    const look = () => {
      const state = channel.getConnectivityState(false);
      if (state === connectivityState.SHUTDOWN) return;
      if (state === connectivityState.READY || state === connectivityState.IDLE) this.#connectingSince = undefined;
      else this.#connectingSince ??= performance.now();
      channel.watchConnectivityState(state, Infinity, look);
    };
    look();
    return client;
  }

  #call<Request extends { requestId: string }, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    { deadlineMs = this.#deadlineMs, metadata = {}, signal }: CallOptions = {},
  ): Promise<Response> {
    signal?.throwIfAborted();
    // Of these, and of what is centuries away, gRPC throws where nobody can catch it: the process would end.
    if (Number.isNaN(deadlineMs)) throw new RangeError("deadlineMs is not a number of milliseconds");
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
        (ended, response) => {
          signal?.removeEventListener("abort", cancel);
          if (ended === null) return resolve(response!);
          reject(LinkageError.from(ended, request.requestId, Math.max(earlierAttempts, attemptsBefore(ended.metadata))));
        },
      );
      const cancel = () => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
      // gRPC counts its attempts in the headers of the last one, or in its trailers when they came alone.
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
    if (FORBIDDEN.test(name)) throw new TypeError(`HTTP/2 has no header ${name}`);
    metadata.set(name, value);
  }
  return metadata;
}

/** Encode before the call: what cannot be encoded has not been sent, and its error would quote the field. */
function encode<Request>(method: { requestSerialize(value: Request): Buffer }, request: Request): Buffer {
  try {
    return method.requestSerialize(request);
  } catch {
    throw new TypeError("the request cannot be encoded: a field's value is not of its type");
  }
}
