package linkage

import (
	"context"
	"sync"

	"google.golang.org/grpc/stats"
)

// attempts records the attempts that gRPC makes for one call. gRPC returns only the error of the last one.
//
// For example, the first attempt reaches the gateway and loses its connection, and the second one gets NotSent. NotSent
// is correct for the second attempt, but wrong for the whole call.
type attempts struct {
	mutex sync.Mutex
	// started and notSent describe the attempt in progress, or the last one: whether its headers were sent, and whether
	// its outcome was NotSent.
	started, notSent bool
	doubt            bool
}

type attemptsKey struct{}

func withAttempts(ctx context.Context) (context.Context, *attempts) {
	a := &attempts{}
	return context.WithValue(ctx, attemptsKey{}, a), a
}

// inDoubt reports whether an attempt before the last one may have been sent to AlipayHK.
func (a *attempts) inDoubt() bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.doubt
}

func (a *attempts) record(event stats.RPCStats) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	switch event := event.(type) {
	case *stats.Begin:
		// gRPC makes a transparent retry only if the gateway did not process the previous attempt.
		if a.started && !a.notSent && !event.IsTransparentRetryAttempt {
			a.doubt = true
		}
		a.started, a.notSent = false, false
	case *stats.OutHeader:
		a.started = true
	case *stats.End:
		a.notSent = event.Error != nil && decode(event.Error, nil).Outcome == NotSent
	}
}

// statsHandler records the events of each attempt in the attempts of its call.
type statsHandler struct{}

func (statsHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (statsHandler) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if a, ok := ctx.Value(attemptsKey{}).(*attempts); ok {
		a.record(event)
	}
}

func (statsHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (statsHandler) HandleConn(context.Context, stats.ConnStats) {}
