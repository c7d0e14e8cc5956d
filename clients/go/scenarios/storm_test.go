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
	workers = 8
	// pause prevents a busy loop while the gateway is down.
	pause = 100 * time.Millisecond
)

var userIDs = []string{
	"2160000000000001", "2160000000000001+DELAY_20", "2160000000000001+DELAY_300", "2160000000000001+USER_NOT_EXIST",
}

// sharedLedgerUserIDs has no user whose requests are rejected: these use up gRPC's retry allowance, and no call may fail.
var sharedLedgerUserIDs = userIDs[:3]

// line is the result of one call. The harness compares it with the sandbox's wallet.
type line struct {
	Method    string `json:"method"`
	RequestID string `json:"request_id"`
	Code      string `json:"code"`
	Reason    string `json:"reason"`
	Outcome   string `json:"outcome"`
}

type storm struct {
	client   *linkage.Client
	deadline time.Duration
	run      string
	file     *os.File

	number, ok atomic.Int64
	writing    sync.Mutex
}

// TestStorm makes calls while the harness kills and restarts the gateway, and writes the results to a file.
func TestStorm(t *testing.T) {
	seconds, err := strconv.ParseFloat(setting(t, "LINKAGE_STORM_S", "the duration of the calls in seconds"), 64)
	if err != nil {
		t.Fatalf("LINKAGE_STORM_S is not a number: %v", err)
	}
	name := setting(t, "LINKAGE_RESULTS", "the path of the file to write")
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &storm{
		client: connect(t, reconnectFast()), deadline: deadline(t), run: setting(t, "LINKAGE_RUN", "a prefix of this run's request ids"), file: file,
	}
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for time.Now().Before(end) && !exists(name+".stop") {
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
		t.Errorf("no call of %d returned OK", s.number.Load())
	}
}

// deadline returns the deadline of a call, LINKAGE_DEADLINE_S or 3 seconds.
func deadline(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("LINKAGE_DEADLINE_S")
	if text == "" {
		return 3 * time.Second
	}
	deadline, err := time.ParseDuration(text + "s")
	if err != nil {
		t.Fatalf("LINKAGE_DEADLINE_S is not a number: %v", err)
	}
	return deadline
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// reconnectFast shortens the backoff. The default backoff grows longer than the time that the gateway is up.
func reconnectFast() grpc.DialOption {
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
	users := userIDs
	if sharedLedger() {
		users = sharedLedgerUserIDs
	}
	userID := users[number/2%int64(len(users))]
	ctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	method, r, err := "SyncLinkage", result{}, error(nil)
	if number%2 == 0 {
		r, err = resultOf(ctx, s.client.SyncLinkage, syncLinkage(id, userID), nil)
	} else {
		method = "BindAccount"
		r, err = resultOf(ctx, s.client.BindAccount, bindAccount(id, userID), nil)
	}
	if err != nil {
		return err
	}
	written := line{Method: method, RequestID: id, Code: "OK", Outcome: "OK"}
	if failed := r.failed; failed != nil {
		written.Code, written.Reason, written.Outcome = failed.CodeName(), failed.Reason, string(failed.Outcome)
		if failed.Code == codes.Unavailable {
			time.Sleep(pause)
		}
	} else {
		s.ok.Add(1)
	}
	return s.write(written)
}

func (s *storm) write(written line) error {
	text, err := json.Marshal(written)
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
