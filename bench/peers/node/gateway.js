// A gateway as a user of Node would write it: SyncLinkage with grpc-js and undici, without a ledger,
// metrics and log.
import { createPublicKey, createPrivateKey, sign, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { Pool } from "undici";

const { values: options } = parseArgs({
  options: Object.fromEntries(
    ["base-url", "path", "client-id", "signing-key", "public-key"].map((name) => [name, { type: "string" }]),
  ),
});
const [path, clientId] = [options.path, options["client-id"]];
const signingKey = createPrivateKey(readFileSync(options["signing-key"]));
const publicKey = createPublicKey(readFileSync(options["public-key"]));
const alipayhk = new Pool(options["base-url"], { connections: 100, bodyTimeout: 4000, headersTimeout: 4000 });
const protos = fileURLToPath(new URL("../../../protos", import.meta.url));
const { alipayhk: packages } = grpc.loadPackageDefinition(
  loadSync("alipayhk/linkage/v1/linkage_service.proto", { includeDirs: [protos], enums: String, longs: Number }),
);

/** The content that a signature covers. */
const signed = (id, time, body) => Buffer.from(`POST ${path}\n${id}.${time}.${body}`);
const wireName = (name, prefix) => name.slice(prefix.length);

async function syncLinkage(request) {
  const body = JSON.stringify({
    requestId: request.requestId,
    bizTime: request.bizTime.seconds * 1000 + Math.floor(request.bizTime.nanos / 1e6),
    bizType: "BINDING_SYNC",
    externalBindingId: request.externalBindingId || undefined,
    operateType: wireName(request.operateType, "OPERATE_TYPE_"),
    externalIdentityType: wireName(request.externalIdentityType, "EXTERNAL_IDENTITY_TYPE_"),
    externalIdentityValue: request.externalIdentityValue,
    userId: request.userId,
    bindingTargetType: wireName(request.bindingTargetType, "BINDING_TARGET_TYPE_"),
    bindingTarget: request.bindingTarget || undefined,
  });
  const time = new Date().toISOString().slice(0, 19) + "Z";
  const signature = sign("sha256", signed(clientId, time, body), signingKey).toString("base64");
  const response = await alipayhk.request({
    path,
    method: "POST",
    headers: {
      "Client-Id": clientId,
      "Content-Type": "application/json; charset=UTF-8",
      "Request-Time": time,
      Signature: `algorithm=RSA256,keyVersion=1,signature=${encodeURIComponent(signature)}`,
    },
    body,
  });
  const answer = await response.body.text();
  const { headers } = response;
  const theirs = Buffer.from(decodeURIComponent(headers.signature.split("signature=")[1]), "base64");
  const content = signed(headers["client-id"], headers["response-time"], answer);
  if (!verify("sha256", content, publicKey, theirs)) {
    throw Object.assign(new Error("the signature is invalid"), { status: grpc.status.UNKNOWN });
  }
  const { result } = JSON.parse(answer);
  if (result.resultStatus !== "S") {
    throw Object.assign(new Error(result.resultCode), { status: grpc.status.FAILED_PRECONDITION });
  }
  return {
    result: { status: result.resultStatus, code: result.resultCode, message: result.resultMessage },
    tracerId: headers["tracer-id"],
    responseTime: { seconds: Math.floor(Date.parse(headers["response-time"]) / 1000) },
  };
}

const server = new grpc.Server();
server.addService(packages.linkage.v1.LinkageService.service, {
  SyncLinkage: (call, callback) =>
    syncLinkage(call.request).then(
      (response) => callback(null, response),
      (error) => callback({ code: error.status ?? grpc.status.UNAVAILABLE, details: error.message }),
    ),
});
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`listening on 127.0.0.1:${port}`);
});
