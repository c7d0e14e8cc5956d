package linkage_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"linkage.alipayhk/go/linkage"
	"linkage.alipayhk/go/linkagev1"
)

func TestNotSentOfEveryAttemptIsNotSent(t *testing.T) {
	g := &gateway{answers: []func(context.Context) error{says(notSent(t, codes.Unavailable), "grpc-retry-pushback-ms", "1")}}
	_, err := callOf(t, g)(t.Context())
	if failed := failedWith(t, err); failed.Outcome != linkage.NotSent || failed.Message != "No." || g.called() != 4 {
		t.Errorf("%v after %d attempts", failed, g.called())
	}
}

func TestNotSentAfterALostAttemptIsUnknown(t *testing.T) {
	g := &gateway{answers: []func(context.Context) error{
		says(status.Error(codes.Unavailable, "connection lost")),
		says(notSent(t, codes.DeadlineExceeded)),
	}}
	_, err := callOf(t, g)(t.Context())
	failed := failedWith(t, err)
	if failed.Outcome != linkage.Unknown || failed.Retry != linkage.SameRequestID || g.called() != 2 {
		t.Errorf("%v after %d attempts", failed, g.called())
	}
}

func TestNotSentAfterALostAttemptIsKeptIfTheRequestIsInvalid(t *testing.T) {
	for retry, outcome := range map[linkage.Retry]linkage.Outcome{
		linkage.SameRequestID: linkage.Unknown,
		linkage.Operator:      linkage.Unknown,
		linkage.NewRequestID:  linkage.NotSent,
		linkage.Never:         linkage.NotSent,
	} {
		refused := failure(codes.FailedPrecondition, packed(t, info("outcome", "not_sent", "retry", string(retry)))...)
		g := &gateway{answers: []func(context.Context) error{
			says(status.Error(codes.Unavailable, "connection lost")),
			says(refused),
		}}
		_, err := callOf(t, g)(t.Context())
		if failed := failedWith(t, err); failed.Outcome != outcome || failed.Retry != retry || g.called() != 2 {
			t.Errorf("%s: %v after %d attempts", retry, failed, g.called())
		}
	}
}

func TestNotSentAfterARefusedConnectionIsNotSent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		if tries.Add(1) == 1 {
			return nil, errors.New("refused")
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	server := grpc.NewServer()
	linkagev1.RegisterLinkageServiceServer(server, &gateway{
		answers: []func(context.Context) error{says(notSent(t, codes.DeadlineExceeded))},
	})
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	reconnectFast := grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 20 * time.Millisecond},
		MinConnectTimeout: time.Second,
	})
	client, err := linkage.New(listener.Addr().String(), linkage.Plaintext(), grpc.WithContextDialer(dial), reconnectFast)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	_, err = client.SyncLinkage(t.Context(), &linkagev1.SyncLinkageRequest{})
	if failed := failedWith(t, err); failed.Outcome != linkage.NotSent || tries.Load() < 2 {
		t.Errorf("%v after %d dials", failed, tries.Load())
	}
}
