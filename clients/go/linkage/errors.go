package linkage

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const domain = "linkage.alipayhk"

// Outcome is the outcome of a call that did not return OK.
type Outcome string

// The outcomes.
const (
	// NotSent: this call sent nothing. An earlier Unknown for the same request id stays Unknown.
	NotSent Outcome = "not_sent"
	// Rejected: AlipayHK rejected the request in a verified response. The request had no effect.
	Rejected Outcome = "rejected"
	// Unknown: the request may or may not have taken effect. Only OK or Rejected for the same id resolves this.
	Unknown Outcome = "unknown"
)

// Retry is the next step for the caller.
type Retry string

// The values of Retry.
const (
	// SameRequestID: wait RetryDelay, then send exactly the same request again.
	SameRequestID Retry = "same_request_id"
	// NewRequestID: correct the request, and send it with a new id.
	NewRequestID Retry = "new_request_id"
	// Never: stop. AlipayHK forbids a retry, or a newer update of the same linkage was already applied.
	Never Retry = "never"
	// Operator: stop, and contact the operators of the gateway.
	Operator Retry = "operator"
)

// Violation is one invalid field of a request.
type Violation struct {
	// Field is the field's name in the proto.
	Field       string
	Description string
}

// Error is the error of a call that did not return OK.
type Error struct {
	Code    codes.Code
	Message string
	Outcome Outcome
	// Reason is a value of ErrorReason without its prefix. It is empty if the status did not come from the gateway.
	Reason string
	Retry  Retry
	// Metadata is the whole metadata of the gateway's ErrorInfo.
	Metadata   map[string]string
	Violations []Violation
	// RetryDelay is the wait before the next attempt; zero if the gateway named none.
	RetryDelay time.Duration
	RequestID  string

	status *status.Status
}

// Error returns one line for a log. It contains no field and no violation of the request.
func (e *Error) Error() string {
	why := e.Reason
	if why == "" {
		why = "no reason"
	}
	return fmt.Sprintf("linkage: %s: %s (%s, outcome %s, retry %s)", e.CodeName(), e.Message, why, e.Outcome, e.Retry)
}

// CodeName returns gRPC's canonical name of the code, such as NOT_FOUND.
func (e *Error) CodeName() string { return code.Code(e.Code).String() }

// GRPCStatus returns the status, so that status.FromError and status.Code work with an *Error.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Decode returns the *Error for an error of the generated stubs, and nil for nil. It never fails: without details from
// the gateway, the outcome is Unknown.
func Decode(err error) *Error {
	if failed, ok := errors.AsType[*Error](err); ok || err == nil {
		return failed
	}
	return decode(err, nil)
}

func decode(err error, trailer metadata.MD) *Error {
	failed := &Error{Outcome: Unknown, Retry: SameRequestID, status: statusOf(err)}
	failed.Code, failed.Message = failed.status.Code(), failed.status.Message()
	failed.RetryDelay = pushback(trailer)
	var ours []*errdetails.ErrorInfo
	// A detail that cannot be parsed has the type error, so no case matches.
	for _, detail := range failed.status.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				ours = append(ours, detail)
			}
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				failed.Violations = append(failed.Violations, Violation{violation.GetField(), violation.GetDescription()})
			}
		case *errdetails.RetryInfo:
			failed.RetryDelay = detail.GetRetryDelay().AsDuration()
		case *errdetails.RequestInfo:
			failed.RequestID = detail.GetRequestId()
		}
	}
	if len(ours) == 1 { // Two ErrorInfos can contradict each other, so neither is used.
		failed.setInfo(ours[0])
	}
	return failed
}

// setInfo sets the fields from an ErrorInfo. Values that this version does not know become Unknown and Operator.
func (e *Error) setInfo(info *errdetails.ErrorInfo) {
	e.Reason, e.Metadata = info.GetReason(), info.GetMetadata()
	switch outcome := Outcome(e.Metadata["outcome"]); outcome {
	case NotSent, Rejected:
		e.Outcome = outcome
	}
	switch retry := Retry(e.Metadata["retry"]); retry {
	case SameRequestID, NewRequestID, Never:
		e.Retry = retry
	default:
		e.Retry = Operator
	}
}

// ofThisAttemptOnly reports whether NotSent may be true only for the last attempt, because the gateway can return it
// before it reads the ledger. If the request itself is invalid, NotSent is true for all attempts.
func (e *Error) ofThisAttemptOnly() bool { return e.Retry == SameRequestID || e.Retry == Operator }

// statusOf returns the status of the last attempt, without the text that gRPC adds to its message.
func statusOf(err error) *status.Status {
	if wrapped, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return wrapped.GRPCStatus()
	}
	return status.FromContextError(err)
}

func pushback(trailer metadata.MD) time.Duration {
	values := trailer.Get("grpc-retry-pushback-ms")
	if len(values) != 1 {
		return 0
	}
	milliseconds, err := strconv.Atoi(values[0])
	if err != nil || milliseconds < 0 {
		return 0
	}
	return time.Duration(milliseconds) * time.Millisecond
}
