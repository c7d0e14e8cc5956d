package linkage

import (
	"context"
	"sync"

	"google.golang.org/grpc/stats"
)

// attempts is what became of the attempts that gRPC makes for one call, of which the caller sees the last alone.
//
// A first attempt may reach the gateway and lose its connection, and the second be told that nothing was sent:
// true of the second, and wrong of the call.
type attempts struct {
	mutex sync.Mutex
	// left and sentNothing are of the attempt under way, or of the last one.
	left, sentNothing bool
	doubt             bool
}

type attemptsKey struct{}

func withAttempts(ctx context.Context) (context.Context, *attempts) {
	made := &attempts{}
	return context.WithValue(ctx, attemptsKey{}, made), made
}

// inDoubt says whether an attempt before the last one may have been sent on.
func (a *attempts) inDoubt() bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.doubt
}

func (a *attempts) note(event stats.RPCStats) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	switch event := event.(type) {
	case *stats.Begin:
		// gRPC repeats transparently only what the gateway never began to read.
		if a.left && !a.sentNothing && !event.IsTransparentRetryAttempt {
			a.doubt = true
		}
		a.left, a.sentNothing = false, false
	case *stats.OutHeader:
		a.left = true
	case *stats.End:
		a.sentNothing = event.Error != nil && decode(event.Error, nil).Outcome == NotSent
	}
}

// watch tells each call's attempts what gRPC does.
type watch struct{}

func (watch) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (watch) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if made, ok := ctx.Value(attemptsKey{}).(*attempts); ok {
		made.note(event)
	}
}

func (watch) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (watch) HandleConn(context.Context, stats.ConnStats) {}
