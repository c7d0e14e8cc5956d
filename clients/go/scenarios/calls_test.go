package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"linkage.alipayhk/go/linkage"
	"linkage.alipayhk/go/linkagev1"
)

// ended is how a call ended: with a response, or with a failure.
type ended struct {
	response proto.Message
	failed   *linkage.Error
}

func (e ended) String() string {
	if e.failed == nil {
		return "OK"
	}
	return e.failed.Error()
}

func call(ctx context.Context, client *linkage.Client, method string, request json.RawMessage) (ended, error) {
	switch method {
	case "SyncLinkage":
		message := &linkagev1.SyncLinkageRequest{}
		return made(ctx, client.SyncLinkage, message, protojson.Unmarshal(request, message))
	case "BindAccount":
		message := &linkagev1.BindAccountRequest{}
		return made(ctx, client.BindAccount, message, protojson.Unmarshal(request, message))
	}
	return ended{}, fmt.Errorf("no method %q", method)
}

func made[Request any, Response proto.Message, Option any](
	ctx context.Context, rpc func(context.Context, Request, ...Option) (Response, error), request Request, unread error,
) (ended, error) {
	if unread != nil {
		return ended{}, unread
	}
	response, err := rpc(ctx, request)
	if err == nil {
		return ended{response: response}, nil
	}
	failed, ok := errors.AsType[*linkage.Error](err)
	if !ok {
		return ended{}, fmt.Errorf("not an *linkage.Error: %w", err)
	}
	return ended{failed: failed}, nil
}
