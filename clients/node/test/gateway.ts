import { Metadata, Server, ServerCredentials, status as Code, type ServerUnaryCall } from "@grpc/grpc-js";

import { LinkageServiceService, SyncLinkageResponse } from "alipayhk-linkage";
import { BadRequest, ErrorInfo, RetryInfo } from "#gen/google/rpc/error_details.js";
import { Status } from "#gen/google/rpc/status.js";

export const DOMAIN = "linkage.alipayhk";

/** Returns trailers like those of the gateway. */
export function trailers(
  metadata: Record<string, string>,
  { domain = DOMAIN, reason = "OVERLOADED", pushbackMs = "", waitMs = 0, fields = [] as string[] } = {},
): Metadata {
  const details = [any("ErrorInfo", ErrorInfo.encode({ reason, domain, metadata }))];
  if (waitMs > 0) {
    const retryDelay = { seconds: Math.trunc(waitMs / 1000), nanos: (waitMs % 1000) * 1_000_000 };
    details.push(any("RetryInfo", RetryInfo.encode({ retryDelay })));
  }
  if (fields.length > 0) {
    const fieldViolations = fields.map((field) => ({ field, description: `${field} is required` }));
    details.push(any("BadRequest", BadRequest.encode({ fieldViolations })));
  }
  const built = withBytes(Status.encode({ code: 0, message: "", details }).finish());
  if (pushbackMs) built.set("grpc-retry-pushback-ms", pushbackMs);
  return built;
}

export function withBytes(bytes: Uint8Array): Metadata {
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(bytes));
  return metadata;
}

function any(name: string, encoded: { finish(): Uint8Array }) {
  return { typeUrl: `type.googleapis.com/google.rpc.${name}`, value: encoded.finish() };
}

export type Answer = { code: Code; trailers?: Metadata; headersFirst?: boolean } | "OK" | "nothing";

/** A stand-in for the gateway. It returns its answers one after the other, repeats the last one, and records attempts. */
export class StandIn {
  readonly arrived: { at: number; metadata: Metadata; deadline: Date | number }[] = [];
  readonly #server = new Server();

  constructor(readonly answers: Answer[]) {
    this.#server.addService(LinkageServiceService, {
      syncLinkage: (call: ServerUnaryCall<unknown, unknown>, callback: (error: object | null, answer?: unknown) => void) => {
        const answer = this.answers[Math.min(this.arrived.length, this.answers.length - 1)];
        this.arrived.push({ at: performance.now(), metadata: call.metadata, deadline: call.getDeadline() });
        if (answer === "nothing" || answer === undefined) return;
        if (answer === "OK") return callback(null, SyncLinkageResponse.fromPartial({ replayed: true }));
        if (answer.headersFirst) call.sendMetadata(new Metadata());
        callback({ code: answer.code, details: "a sentence", metadata: answer.trailers ?? new Metadata() });
      },
      bindAccount: (_call: unknown, callback: (error: object) => void) => callback({ code: Code.UNIMPLEMENTED }),
    });
  }

  listen(): Promise<string> {
    return new Promise((resolve, reject) =>
      this.#server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
        error ? reject(error) : resolve(`127.0.0.1:${port}`),
      ),
    );
  }

  close(): void {
    this.#server.forceShutdown();
  }
}
