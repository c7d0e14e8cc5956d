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

// result is the result of a call: a response or an error.
type result struct {
	response proto.Message
	failed   *linkage.Error
}

func (r result) String() string {
	if r.failed == nil {
		return "OK"
	}
	return r.failed.Error()
}

func call(ctx context.Context, client *linkage.Client, method string, request json.RawMessage) (result, error) {
	switch method {
	case "SyncLinkage":
		message := &linkagev1.SyncLinkageRequest{}
		return resultOf(ctx, client.SyncLinkage, message, protojson.Unmarshal(request, message))
	case "BindAccount":
		message := &linkagev1.BindAccountRequest{}
		return resultOf(ctx, client.BindAccount, message, protojson.Unmarshal(request, message))
	}
	return result{}, fmt.Errorf("unknown method %q", method)
}

func resultOf[Request any, Response proto.Message, Option any](
	ctx context.Context, rpc func(context.Context, Request, ...Option) (Response, error), request Request, invalid error,
) (result, error) {
	if invalid != nil {
		return result{}, invalid
	}
	response, err := rpc(ctx, request)
	if err == nil {
		return result{response: response}, nil
	}
	failed, ok := errors.AsType[*linkage.Error](err)
	if !ok {
		return result{}, fmt.Errorf("not an *linkage.Error: %w", err)
	}
	return result{failed: failed}, nil
}
