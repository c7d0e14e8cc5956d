package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
	"linkage.alipayhk/go/linkage"
	"linkage.alipayhk/go/linkagev1"
)

const (
	workers  = 8
	deadline = 3 * time.Second
	// pause keeps workers from spinning while there is no gateway.
	pause = 100 * time.Millisecond
)

var userIDs = []string{
	"2160000000000001", "2160000000000001+DELAY_20", "2160000000000001+DELAY_300", "2160000000000001+USER_NOT_EXIST",
}

// told is what a caller was told of one request; whoever runs the storm compares it with the sandbox's memory.
type told struct {
	Method    string `json:"method"`
	RequestID string `json:"request_id"`
	Code      string `json:"code"`
	Reason    string `json:"reason"`
	Outcome   string `json:"outcome"`
}

type storm struct {
	client *linkage.Client
	run    string
	file   *os.File

	number, ok atomic.Int64
	writing    sync.Mutex
}

// TestStorm calls while somebody else kills and restarts the gateway, and writes down what it was told.
func TestStorm(t *testing.T) {
	seconds, err := strconv.ParseFloat(setting(t, "LINKAGE_STORM_S", "the seconds that the storm lasts"), 64)
	if err != nil {
		t.Fatalf("LINKAGE_STORM_S is not a number: %v", err)
	}
	name := setting(t, "LINKAGE_RESULTS", "the path of the file to write")
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &storm{client: connect(t, soon()), run: setting(t, "LINKAGE_RUN", "a prefix of this run's request ids"), file: file}
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for time.Now().Before(end) {
				if err := s.one(t.Context()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	working.Wait()
	t.Logf("%d calls, %d of them OK", s.number.Load(), s.ok.Load())
	if s.ok.Load() == 0 {
		t.Errorf("none of %d calls was OK", s.number.Load())
	}
}

// soon connects again quickly: the default waits longer each time, and would sit the storm out.
func soon() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{
			BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 200 * time.Millisecond,
		},
		MinConnectTimeout: time.Second,
	})
}

func (s *storm) one(ctx context.Context) error {
	number := s.number.Add(1)
	id := fmt.Sprintf("%s-storm-%d", s.run, number)
	userID := userIDs[number/2%int64(len(userIDs))]
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	method, end, err := "SyncLinkage", ended{}, error(nil)
	if number%2 == 0 {
		end, err = made(ctx, s.client.SyncLinkage, syncLinkage(id, userID), nil)
	} else {
		method = "BindAccount"
		end, err = made(ctx, s.client.BindAccount, bindAccount(id, userID), nil)
	}
	if err != nil {
		return err
	}
	line := told{Method: method, RequestID: id, Code: "OK", Outcome: "OK"}
	if failed := end.failed; failed != nil {
		line.Code, line.Reason, line.Outcome = failed.CodeName(), failed.Reason, string(failed.Outcome)
		if failed.Code == codes.Unavailable {
			time.Sleep(pause)
		}
	} else {
		s.ok.Add(1)
	}
	return s.write(line)
}

func (s *storm) write(line told) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	_, err = s.file.Write(append(text, '\n'))
	return err
}

func syncLinkage(id, userID string) *linkagev1.SyncLinkageRequest {
	return &linkagev1.SyncLinkageRequest{
		RequestId:             id,
		BizTime:               timestamppb.Now(),
		OperateType:           linkagev1.OperateType_OPERATE_TYPE_BIND,
		ExternalIdentityType:  linkagev1.ExternalIdentityType_EXTERNAL_IDENTITY_TYPE_UID,
		ExternalIdentityValue: id,
		UserId:                userID,
		BindingTargetType:     linkagev1.BindingTargetType_BINDING_TARGET_TYPE_USER_ID,
	}
}

func bindAccount(id, userID string) *linkagev1.BindAccountRequest {
	return &linkagev1.BindAccountRequest{
		RequestId:         id,
		MerchantAccountId: "2160400000002012",
		Type:              "TELECOM",
		SubType:           "MOBILE_SERVICE",
		Account:           &linkagev1.BindAccountRequest_AccountId{AccountId: id},
		UserId:            userID,
		Timestamp:         timestamppb.Now(),
	}
}
