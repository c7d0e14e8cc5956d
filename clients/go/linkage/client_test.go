package linkage_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"linkage.alipayhk/go/linkage"
	"linkage.alipayhk/go/linkagev1"
)

// A gateway returns its answers one after the other, and then repeats the last one.
type gateway struct {
	linkagev1.UnimplementedLinkageServiceServer
	answers []func(context.Context) error

	mutex sync.Mutex
	calls int
}

func (g *gateway) SyncLinkage(
	ctx context.Context, _ *linkagev1.SyncLinkageRequest,
) (*linkagev1.SyncLinkageResponse, error) {
	g.mutex.Lock()
	answer := g.answers[min(g.calls, len(g.answers)-1)]
	g.calls++
	g.mutex.Unlock()
	if err := answer(ctx); err != nil {
		return nil, err
	}
	return &linkagev1.SyncLinkageResponse{Result: &linkagev1.Result{Status: "S"}}, nil
}

func (g *gateway) called() int {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.calls
}

func serve(t *testing.T, g *gateway, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	linkagev1.RegisterLinkageServiceServer(server, g)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func callOf(t *testing.T, g *gateway) func(context.Context) (*linkagev1.SyncLinkageResponse, error) {
	t.Helper()
	client, err := linkage.New(serve(t, g), linkage.Plaintext())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return func(ctx context.Context) (*linkagev1.SyncLinkageResponse, error) {
		return client.SyncLinkage(ctx, &linkagev1.SyncLinkageRequest{RequestId: "id-1"})
	}
}

func says(err error, trailer ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := grpc.SetTrailer(ctx, metadata.Pairs(trailer...)); err != nil {
			return err
		}
		return err
	}
}

func notSent(t *testing.T, code codes.Code) error {
	t.Helper()
	return failure(code, packed(t, info("outcome", "not_sent", "retry", "same_request_id"))...)
}

func failedWith(t *testing.T, err error) *linkage.Error {
	t.Helper()
	failed, ok := errors.AsType[*linkage.Error](err)
	if !ok {
		t.Fatalf("not an *linkage.Error: %v", err)
	}
	return failed
}

func TestAllLanguagesHaveTheSameServiceConfigs(t *testing.T) {
	for name, embedded := range map[string]string{
		"retry_service_config.json":               linkage.RetryServiceConfig,
		"retry_service_config.shared_ledger.json": linkage.SharedLedgerServiceConfig,
	} {
		shared, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if embedded != string(shared) {
			t.Errorf("clients/go/linkage/%s differs from clients/%s: copy it.", name, name)
		}
	}
}

func TestCallsAreSpreadOnlyWithASharedLedger(t *testing.T) {
	for spread, options := range map[bool][]grpc.DialOption{false: nil, true: {linkage.WithSharedLedger()}} {
		first := &gateway{answers: []func(context.Context) error{says(nil)}}
		second := &gateway{answers: first.answers}
		name := manual.NewBuilderWithScheme("gateways")
		name.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: serve(t, first)}, {Addr: serve(t, second)}}})
		client, err := linkage.New("gateways:///", linkage.Plaintext(), append(options, grpc.WithResolvers(name))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		both := func() bool { return first.called() > 0 && second.called() > 0 }
		// Calls reach an address only after its connection is established.
		end := time.Now().Add(10 * time.Second)
		for time.Now().Before(end) && (first.called()+second.called() < 20 || spread && !both()) {
			if _, err := client.SyncLinkage(t.Context(), &linkagev1.SyncLinkageRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		if both() != spread {
			t.Errorf("spread %v: %d and %d calls", spread, first.called(), second.called())
		}
	}
}

func TestACallWithoutADeadlineGetsTheDefault(t *testing.T) {
	var left time.Duration
	g := &gateway{answers: []func(context.Context) error{func(ctx context.Context) error {
		deadline, _ := ctx.Deadline()
		left = time.Until(deadline)
		return nil
	}}}
	if _, err := callOf(t, g)(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left < 8*time.Second || left > linkage.DefaultDeadline {
		t.Errorf("the deadline is in %v", left)
	}
}

func TestMetadataOfTheContextIsSent(t *testing.T) {
	var received metadata.MD
	g := &gateway{answers: []func(context.Context) error{func(ctx context.Context) error {
		received, _ = metadata.FromIncomingContext(ctx)
		return nil
	}}}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-1-2-01", "x-request-id", "x-1")
	if _, err := callOf(t, g)(ctx); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(received.Get("traceparent"), []string{"00-1-2-01"}) || !slices.Equal(received.Get("x-request-id"), []string{"x-1"}) {
		t.Error(received)
	}
}

func TestGRPCWaitsForThePushback(t *testing.T) {
	busy := says(notSent(t, codes.ResourceExhausted), "grpc-retry-pushback-ms", "600")
	g := &gateway{answers: []func(context.Context) error{busy, says(nil)}}
	start := time.Now()
	if _, err := callOf(t, g)(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 600*time.Millisecond || g.called() != 2 {
		t.Errorf("%d attempts took %v", g.called(), took)
	}
}

func TestACallThatTheGatewayCancelledIsSentAgain(t *testing.T) {
	g := &gateway{answers: []func(context.Context) error{says(status.Error(codes.Canceled, "")), says(nil)}}
	if _, err := callOf(t, g)(t.Context()); err != nil || g.called() != 2 {
		t.Errorf("%v after %d attempts", err, g.called())
	}
}

func TestANegativePushbackForbidsARetry(t *testing.T) {
	g := &gateway{answers: []func(context.Context) error{
		says(failure(codes.Unavailable, packed(t, info("outcome", "not_sent", "retry", "operator"))...), "grpc-retry-pushback-ms", "-1"),
	}}
	_, err := callOf(t, g)(t.Context())
	if failed := failedWith(t, err); failed.Retry != linkage.Operator || failed.RetryDelay != 0 || g.called() != 1 {
		t.Errorf("%v after %d attempts", failed, g.called())
	}
}

func TestRetryDelayIsThePushbackIfThereIsNoRetryInfo(t *testing.T) {
	answer := says(status.Error(codes.Internal, "No."), "grpc-retry-pushback-ms", "250")
	_, err := callOf(t, &gateway{answers: []func(context.Context) error{answer}})(t.Context())
	if failed := failedWith(t, err); failed.RetryDelay != 250*time.Millisecond || failed.RequestID != "id-1" {
		t.Errorf("%v %q", failed.RetryDelay, failed.RequestID)
	}
	detail := packed(t, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	answer = says(failure(codes.Internal, detail...), "grpc-retry-pushback-ms", "250")
	_, err = callOf(t, &gateway{answers: []func(context.Context) error{answer}})(t.Context())
	if failed := failedWith(t, err); failed.RetryDelay != time.Second {
		t.Error(failed.RetryDelay)
	}
}

func TestAConnectionThatDoesNotFinishItsHandshakeIsReplaced(t *testing.T) {
	var dials atomic.Int32
	target := serve(t, &gateway{answers: []func(context.Context) error{says(nil)}})
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	client, err := linkage.New(target, linkage.Plaintext(), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := client.SyncLinkage(ctx, &linkagev1.SyncLinkageRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("%v after %v and %d dials", err, time.Since(start), dials.Load())
	}
}

func TestMalformedDetailsGiveUnknown(t *testing.T) {
	answer := says(status.Error(codes.NotFound, "No."), "grpc-status-details-bin", "\xff\xff\x01")
	_, err := callOf(t, &gateway{answers: []func(context.Context) error{answer}})(t.Context())
	if failed := failedWith(t, err); failed.Outcome != linkage.Unknown || failed.Code != codes.NotFound {
		t.Error(failed)
	}
}
