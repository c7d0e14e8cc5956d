// Package linkage calls the AlipayHK gateway: both RPCs, and what each error means.
//
//	client, err := linkage.New("gateway.internal:50051", linkage.Plaintext())
//	response, err := client.SyncLinkage(ctx, request)
//	if failed, ok := errors.AsType[*linkage.Error](err); ok {
//		// failed.Outcome says what happened, failed.Retry what to do next.
//	}
//
// Metadata such as traceparent and x-request-id goes along when the context holds it
// (metadata.AppendToOutgoingContext). Nothing here logs.
package linkage

import (
	"context"
	_ "embed"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"linkage.alipayhk/go/linkagev1"
)

// DefaultDeadline is that of a call whose context has none.
const DefaultDeadline = 10 * time.Second

// RetryServiceConfig is what gRPC retries by itself; it is the same in every language. Repeating a request
// with its id and content is always safe for a caller of the gateway. The trailer grpc-retry-pushback-ms of
// every error overrides it: the wait in milliseconds, or -1 for no other attempt within this call. Whether to
// send the request again later is what Error.Retry says.
//
//go:embed retry_service_config.json
var RetryServiceConfig string

// A connection that was dropped in silence would be used on and on, each call Unknown by its deadline. The gateway
// allows pings that are 10 s apart, also without calls.
var pings = keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}

// gRPC's own two minutes would keep a caller away long after the gateway is back, and its 20 s for one connection are
// longer than a call has.
var connecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// Client calls one gateway. It may be used by many goroutines at once.
type Client struct {
	connection *grpc.ClientConn
	stub       linkagev1.LinkageServiceClient
}

// New makes a client of target, "host:port"; it connects when the first call is made. See Plaintext, TLS and
// MutualTLS for how. More options override those that are set here.
func New(target string, how credentials.TransportCredentials, more ...grpc.DialOption) (*Client, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(how),
		grpc.WithDefaultServiceConfig(RetryServiceConfig),
		// Neither DNS nor the environment changes how calls are made.
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(pings),
		grpc.WithConnectParams(connecting),
		grpc.WithStatsHandler(watch{}),
	}
	connection, err := grpc.NewClient(target, append(options, more...)...)
	if err != nil {
		return nil, err
	}
	return &Client{connection: connection, stub: linkagev1.NewLinkageServiceClient(connection)}, nil
}

// Close ends the connections, and the calls under way with them.
func (c *Client) Close() error { return c.connection.Close() }

// SyncLinkage tells AlipayHK that a membership or card was bound or unbound. Every error is an *Error.
func (c *Client) SyncLinkage(
	ctx context.Context, request *linkagev1.SyncLinkageRequest, options ...grpc.CallOption,
) (*linkagev1.SyncLinkageResponse, error) {
	return call(ctx, c.stub.SyncLinkage, request, options)
}

// BindAccount binds a bill account to a wallet user. Every error is an *Error.
func (c *Client) BindAccount(
	ctx context.Context, request *linkagev1.BindAccountRequest, options ...grpc.CallOption,
) (*linkagev1.BindAccountResponse, error) {
	return call(ctx, c.stub.BindAccount, request, options)
}

func call[Request interface{ GetRequestId() string }, Response any](
	ctx context.Context,
	rpc func(context.Context, Request, ...grpc.CallOption) (*Response, error),
	request Request,
	options []grpc.CallOption,
) (*Response, error) {
	if _, hasDeadline := ctx.Deadline(); !hasDeadline {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultDeadline)
		defer cancel()
	}
	ctx, attempts := withAttempts(ctx)
	var trailer metadata.MD
	response, err := rpc(ctx, request, append(options[:len(options):len(options)], grpc.Trailer(&trailer))...)
	if err == nil {
		return response, nil
	}
	failed := decode(err, trailer)
	if failed.RequestID == "" {
		failed.RequestID = request.GetRequestId()
	}
	if failed.Outcome == NotSent && failed.ofThisAttemptOnly() && attempts.inDoubt() {
		failed.Outcome = Unknown
	}
	return nil, failed
}
