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

// Outcome is what happened to a call that did not end with OK.
type Outcome string

// The outcomes.
const (
	// NotSent: this call sent nothing. It does not take back an Unknown that is held for the request id already.
	NotSent Outcome = "not_sent"
	// Rejected: AlipayHK verifiably refused it for good. It had no effect.
	Rejected Outcome = "rejected"
	// Unknown: it may or may not have taken effect. Only OK or Rejected for the same id ends the doubt.
	Unknown Outcome = "unknown"
)

// Retry is what to do next.
type Retry string

// What to do next.
const (
	// SameRequestID: wait RetryDelay, and send the very same request again.
	SameRequestID Retry = "same_request_id"
	// NewRequestID: mend the request, and send it under a new id.
	NewRequestID Retry = "new_request_id"
	// Never: stop. AlipayHK says not to retry, or newer news has overtaken this.
	Never Retry = "never"
	// Operator: stop, and tell the people who run the gateway.
	Operator Retry = "operator"
)

// Violation is one fault of a request.
type Violation struct {
	// Field is the field's name in the proto.
	Field       string
	Description string
}

// Error is how a call ended that did not end with OK.
type Error struct {
	Code    codes.Code
	Message string
	Outcome Outcome
	// Reason says why, for people and dashboards: a value of ErrorReason without its prefix. It is empty when the
	// status is not the gateway's own.
	Reason string
	Retry  Retry
	// Metadata is the ErrorInfo's, as the gateway wrote it.
	Metadata   map[string]string
	Violations []Violation
	// RetryDelay is how long to wait before the next attempt; zero when nothing was said.
	RetryDelay time.Duration
	RequestID  string

	status *status.Status
}

// Error says all but the request's own: neither its fields nor its violations.
func (e *Error) Error() string {
	why := e.Reason
	if why == "" {
		why = "no reason"
	}
	return fmt.Sprintf("linkage: %s: %s (%s, outcome %s, retry %s)", e.CodeName(), e.Message, why, e.Outcome, e.Retry)
}

// CodeName is gRPC's canonical name of the code, such as NOT_FOUND.
func (e *Error) CodeName() string { return code.Code(e.Code).String() }

// GRPCStatus makes status.FromError and status.Code understand an *Error.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Decode reads the error of a call that was made with the stubs themselves; nil is nil. It never fails: what the
// gateway did not say is Unknown.
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
	// A detail that cannot be read comes as an error, and so fits no case.
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
	if len(ours) == 1 { // Of two that contradict each other neither is to be believed.
		failed.inform(ours[0])
	}
	return failed
}

// A word that this version does not know leaves what is safe: in doubt, and for a person.
func (e *Error) inform(info *errdetails.ErrorInfo) {
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

// ofThisAttemptOnly says whether a NotSent may be of one attempt, and take nothing back of those before it: it may have
// been said before the ledger was read. Where the request itself is at fault it holds for all of them.
func (e *Error) ofThisAttemptOnly() bool { return e.Retry == SameRequestID || e.Retry == Operator }

// statusOf looks through what gRPC wraps around the last attempt's status, which would become part of its message.
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
