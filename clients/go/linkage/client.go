// Package linkage is the client of the AlipayHK gateway. It makes the calls, and decodes the details of errors.
//
//	client, err := linkage.New("gateway.internal:50051", linkage.Plaintext())
//	response, err := client.SyncLinkage(ctx, request)
//	if failed, ok := errors.AsType[*linkage.Error](err); ok {
//		// failed.Outcome is what happened, failed.Retry is the next step.
//	}
//
// Metadata of the context, such as traceparent and x-request-id, is sent with each call
// (metadata.AppendToOutgoingContext). The package writes no logs.
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

// DefaultDeadline is the timeout of a call if its context has no deadline.
const DefaultDeadline = 10 * time.Second

// RetryServiceConfig is gRPC's retry policy, which is the same in every language. Repeating a request with the same id
// and content is always safe for a caller of the gateway. The trailer grpc-retry-pushback-ms of every error overrides
// the policy: it is the wait in milliseconds, or -1 for no further attempt within this call. -1 does not forbid sending
// the request again later; see Error.Retry.
//
//go:embed retry_service_config.json
var RetryServiceConfig string

// SharedLedgerServiceConfig is the same policy with round_robin.
//
//go:embed retry_service_config.shared_ledger.json
var SharedLedgerServiceConfig string

// Pings detect a connection that a firewall dropped silently. Otherwise it stays in use, and every call ends at its
// deadline as Unknown. The gateway allows a ping every 10 s, also without calls.
var pings = keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}

// gRPC's default maximum backoff of 2 minutes delays callers long after the gateway has recovered. Its default timeout
// of 20 s for one connection attempt is longer than a call's deadline.
var connecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// Client is a client of one gateway. Any number of goroutines can use it concurrently.
type Client struct {
	connection *grpc.ClientConn
	stub       linkagev1.LinkageServiceClient
}

// New returns a client for the gateway at target, "host:port". It connects with the first call. Plaintext, TLS and
// MutualTLS return the transport credentials. The options in more override the options that are set here.
func New(target string, transport credentials.TransportCredentials, more ...grpc.DialOption) (*Client, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(RetryServiceConfig),
		// DNS TXT records must not change the retry policy, and proxies in the environment must not be used.
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(pings),
		grpc.WithConnectParams(connecting),
		grpc.WithStatsHandler(statsHandler{}),
	}
	connection, err := grpc.NewClient(target, append(options, more...)...)
	if err != nil {
		return nil, err
	}
	return &Client{connection: connection, stub: linkagev1.NewLinkageServiceClient(connection)}, nil
}

// WithSharedLedger returns an option for New that spreads the calls over all addresses of the target. Use it only if the
// gateways at these addresses share one ledger.
func WithSharedLedger() grpc.DialOption {
	return grpc.WithDefaultServiceConfig(SharedLedgerServiceConfig)
}

// Close closes the connections. Calls in progress fail.
func (c *Client) Close() error { return c.connection.Close() }

// SyncLinkage notifies AlipayHK that a membership or card was bound or unbound. Every error is an *Error.
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
