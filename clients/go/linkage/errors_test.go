package linkage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"linkage.alipayhk/go/linkage"
)

func info(pairs ...string) *errdetails.ErrorInfo {
	metadata := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		metadata[pairs[i]] = pairs[i+1]
	}
	return &errdetails.ErrorInfo{Domain: "linkage.alipayhk", Reason: "WALLET_REJECTED", Metadata: metadata}
}

func packed(t *testing.T, details ...proto.Message) []*anypb.Any {
	t.Helper()
	var all []*anypb.Any
	for _, detail := range details {
		one, err := anypb.New(detail)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

func failure(code codes.Code, details ...*anypb.Any) error {
	return status.ErrorProto(&spb.Status{Code: int32(code), Message: "No.", Details: details})
}

func TestDecodeReadsEveryDetail(t *testing.T) {
	err := failure(codes.NotFound, packed(t,
		info("outcome", "rejected", "retry", "new_request_id", "result_code", "USER_NOT_EXIST"),
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "user_id", Description: "is required"},
		}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
		&errdetails.RequestInfo{RequestId: "id-1"},
	)...)
	failed := linkage.Decode(fmt.Errorf("around it: %w", err))
	if failed.Code != codes.NotFound || failed.CodeName() != "NOT_FOUND" || failed.Message != "No." {
		t.Errorf("code and message: %v", failed)
	}
	if failed.Outcome != linkage.Rejected || failed.Reason != "WALLET_REJECTED" || failed.Retry != linkage.NewRequestID {
		t.Errorf("outcome, reason and retry: %v", failed)
	}
	if failed.Metadata["result_code"] != "USER_NOT_EXIST" {
		t.Errorf("metadata: %v", failed.Metadata)
	}
	if len(failed.Violations) != 1 || failed.Violations[0] != (linkage.Violation{Field: "user_id", Description: "is required"}) {
		t.Errorf("violations: %v", failed.Violations)
	}
	if failed.RetryDelay != 1500*time.Millisecond || failed.RequestID != "id-1" {
		t.Errorf("retry delay %v, request id %q", failed.RetryDelay, failed.RequestID)
	}
	if status.Code(failed) != codes.NotFound {
		t.Error("status.Code does not return the code")
	}
	if strings.Contains(failed.Error(), "user_id") || strings.Contains(failed.Error(), "id-1") {
		t.Errorf("the text contains a field of the request: %s", failed)
	}
}

func TestDecodeWithoutValidDetailsIsUnknown(t *testing.T) {
	foreign := info("outcome", "rejected", "retry", "never")
	foreign.Domain = "proxy.example"
	broken := packed(t, info("outcome", "not_sent"))
	broken[0].Value = []byte{0x0a, 0xff, 0x01}
	rows := map[string]struct {
		err    error
		reason string
	}{
		"no details":              {failure(codes.Unavailable), ""},
		"another domain":          {failure(codes.NotFound, packed(t, foreign)...), ""},
		"an unknown outcome":      {failure(codes.Aborted, packed(t, info("outcome", "perhaps"))...), "WALLET_REJECTED"},
		"an outcome in capitals":  {failure(codes.Aborted, packed(t, info("outcome", "NOT_SENT"))...), "WALLET_REJECTED"},
		"no outcome":              {failure(codes.Aborted, packed(t, info())...), "WALLET_REJECTED"},
		"an unknown retry":        {failure(codes.Aborted, packed(t, info("retry", "later"))...), "WALLET_REJECTED"},
		"two ErrorInfos":          {failure(codes.NotFound, packed(t, info("outcome", "rejected"), info("outcome", "not_sent"))...), ""},
		"malformed bytes":         {failure(codes.Internal, broken...), ""},
		"an unknown type":         {failure(codes.Internal, &anypb.Any{TypeUrl: "type.example/no.Such"}), ""},
		"a detail without a type": {failure(codes.Internal, &anypb.Any{}), ""},
		"the caller's deadline":   {context.DeadlineExceeded, ""},
		"no status at all":        {errors.New("lost"), ""},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			failed := linkage.Decode(row.err)
			retry := linkage.SameRequestID
			if row.reason != "" { // A status of the gateway with an unknown retry value needs an operator.
				retry = linkage.Operator
			}
			if failed.Outcome != linkage.Unknown || failed.Retry != retry || failed.Reason != row.reason {
				t.Errorf("%v", failed)
			}
		})
	}
}

func TestDecodeKeepsTheCodeOfADeadline(t *testing.T) {
	if code := linkage.Decode(context.DeadlineExceeded).CodeName(); code != "DEADLINE_EXCEEDED" {
		t.Error(code)
	}
}

func TestDecodeReturnsAnErrorUnchanged(t *testing.T) {
	failed := linkage.Decode(failure(codes.Aborted))
	if linkage.Decode(failed) != failed || linkage.Decode(nil) != nil {
		t.Error("Decode returned another error")
	}
}
