package scenarios

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
)

// expectations are the expectations of a step. Absent fields are not checked.
type expectations struct {
	Code       *string           `json:"code"`
	Reason     *string           `json:"reason"`
	Outcome    *string           `json:"outcome"`
	Retry      *string           `json:"retry"`
	Metadata   map[string]string `json:"metadata"`
	Violations []string          `json:"violations"`
	Response   map[string]any    `json:"response"`
	TookMsMin  *int64            `json:"took_ms_min"`
	TookMsMax  *int64            `json:"took_ms_max"`
}

// misses returns one line for each expectation that the result does not meet.
func (x expectations) misses(r result, took time.Duration) []string {
	misses := x.missedTime(took)
	if r.failed != nil {
		misses = append(misses, x.missedFailure(r)...)
	} else {
		misses = append(misses, x.missedResponse(r)...)
	}
	return misses
}

func (x expectations) missedTime(took time.Duration) (misses []string) {
	if x.TookMsMin != nil && took.Milliseconds() < *x.TookMsMin {
		misses = append(misses, fmt.Sprintf("took %v, expected at least %d ms", took, *x.TookMsMin))
	}
	if x.TookMsMax != nil && took.Milliseconds() > *x.TookMsMax {
		misses = append(misses, fmt.Sprintf("took %v, expected at most %d ms", took, *x.TookMsMax))
	}
	return misses
}

func (x expectations) missedFailure(r result) (misses []string) {
	failed := r.failed
	if x.Response != nil {
		misses = append(misses, "expected a response")
	}
	for _, field := range []struct {
		name string
		want *string
		got  string
	}{
		{"code", x.Code, failed.CodeName()},
		{"reason", x.Reason, failed.Reason},
		{"outcome", x.Outcome, string(failed.Outcome)},
		{"retry", x.Retry, string(failed.Retry)},
	} {
		if field.want != nil && *field.want != field.got {
			misses = append(misses, fmt.Sprintf("%s is %q, expected %q", field.name, field.got, *field.want))
		}
	}
	for name, want := range x.Metadata {
		if got := failed.Metadata[name]; got != want {
			misses = append(misses, fmt.Sprintf("metadata %s is %q, expected %q", name, got, want))
		}
	}
	if x.Violations != nil {
		fields := []string{}
		for _, violation := range failed.Violations {
			fields = append(fields, violation.Field)
		}
		if got, want := set(fields), set(x.Violations); !slices.Equal(got, want) {
			misses = append(misses, fmt.Sprintf("violations are of %v, expected %v", got, want))
		}
	}
	return misses
}

func (x expectations) missedResponse(r result) (misses []string) {
	if x.Code != nil && *x.Code != "OK" {
		misses = append(misses, fmt.Sprintf("code is OK, expected %s", *x.Code))
	}
	if x.Reason != nil || x.Outcome != nil || x.Retry != nil || x.Metadata != nil || x.Violations != nil {
		misses = append(misses, "expected an error")
	}
	if x.Response == nil {
		return misses
	}
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(r.response)
	if err != nil {
		return append(misses, err.Error())
	}
	var got any
	if err := json.Unmarshal(text, &got); err != nil {
		return append(misses, err.Error())
	}
	return append(misses, missing("response", x.Response, got)...)
}

// missing compares recursively. An object can have more members than the wanted one.
func missing(where string, want, got any) (misses []string) {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %v, expected an object", where, got)}
		}
		for name, member := range want {
			misses = append(misses, missing(where+"."+name, member, object[name])...)
		}
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return []string{fmt.Sprintf("%s is %v, expected a list of %d", where, got, len(want))}
		}
		for i := range want {
			misses = append(misses, missing(fmt.Sprintf("%s[%d]", where, i), want[i], list[i])...)
		}
	default:
		if !reflect.DeepEqual(want, got) {
			misses = append(misses, fmt.Sprintf("%s is %v, expected %v", where, got, want))
		}
	}
	return misses
}

func set(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}
