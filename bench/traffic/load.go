package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "linkage.alipayhk/go/linkagev1"
)

const (
	deadline = 10 * time.Second
	ticksHz  = 100 // the unit of times in /proc/PID/stat, on every architecture of Linux
)

// report is printed as JSON. Only calls that ended inside the measured time count, and in an open loop
// those that were due in it.
type report struct {
	Calls  int            `json:"calls"`
	Errors map[string]int `json:"errors"`
	Rate   float64        `json:"rate"`
	P50    float64        `json:"p50_ms"`
	P90    float64        `json:"p90_ms"`
	P99    float64        `json:"p99_ms"`
	CPU    float64        `json:"cpu_us"`
}

type options struct {
	target, kind, ca, cert, key, pids string
	channels, inFlight                int
	rate                              float64
	warmUp, duration                  time.Duration
}

// loader makes calls and keeps their latencies.
type loader struct {
	call     func(context.Context, pb.LinkageServiceClient, string) error
	clients  []pb.LinkageServiceClient
	run      string
	number   atomic.Int64
	from, to time.Time
	mutex    sync.Mutex
	waits    []time.Duration
	errors   map[string]int
}

func load(args []string) error {
	var o options
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	flags.StringVar(&o.target, "target", "", "the gateway's address")
	flags.StringVar(&o.kind, "kind", "sync", "sync, bind, or invalid: a SyncLinkage without its required fields")
	flags.StringVar(&o.ca, "ca", "", "the CA of the gateway's certificate, PEM; with it the calls use TLS")
	flags.StringVar(&o.cert, "cert", "", "a client certificate, PEM")
	flags.StringVar(&o.key, "key", "", "its private key, PEM")
	flags.StringVar(&o.pids, "pids", "", "processes with a comma between them; their CPU time per call is reported")
	flags.IntVar(&o.channels, "channels", 10, "number of connections, used in turn")
	flags.IntVar(&o.inFlight, "in-flight", 16, "closed loop: number of calls in flight")
	flags.Float64Var(&o.rate, "rate", 0, "open loop: calls per second, each due at its own time")
	flags.DurationVar(&o.warmUp, "warm-up", time.Second, "time before the measured time")
	flags.DurationVar(&o.duration, "duration", 4*time.Second, "the measured time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	calls := map[string]func(context.Context, pb.LinkageServiceClient, string) error{
		"sync": syncLinkage, "bind": bindAccount, "invalid": invalid,
	}
	l := &loader{call: calls[o.kind], errors: map[string]int{}, run: strconv.FormatInt(time.Now().UnixNano(), 36)}
	if l.call == nil {
		return fmt.Errorf("-kind %s is unknown", o.kind)
	}
	if err := l.connect(o); err != nil {
		return err
	}
	start := time.Now()
	l.from = start.Add(o.warmUp)
	l.to = l.from.Add(o.duration)
	var calling sync.WaitGroup
	if o.rate > 0 {
		calling.Go(func() { l.open(start, o.rate) })
	} else {
		for range o.inFlight {
			calling.Go(l.closed)
		}
	}
	time.Sleep(time.Until(l.from))
	before, err := cpuTicks(o.pids)
	if err != nil {
		return err
	}
	time.Sleep(time.Until(l.to))
	after, err := cpuTicks(o.pids)
	if err != nil {
		return err
	}
	calling.Wait()
	return json.NewEncoder(os.Stdout).Encode(l.report(o.duration, after-before))
}

// connect opens the connections, so that no call waits for a handshake.
func (l *loader) connect(o options) error {
	transport := insecure.NewCredentials()
	if o.ca != "" {
		settings := &tls.Config{RootCAs: x509.NewCertPool()}
		authority, err := os.ReadFile(o.ca)
		if err != nil {
			return err
		}
		if !settings.RootCAs.AppendCertsFromPEM(authority) {
			return errors.New("-ca has no certificate")
		}
		own, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return err
		}
		settings.Certificates = []tls.Certificate{own}
		transport = credentials.NewTLS(settings)
	}
	limit, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for range o.channels {
		channel, err := grpc.NewClient("passthrough:///"+o.target, grpc.WithTransportCredentials(transport), grpc.WithDisableRetry())
		if err != nil {
			return err
		}
		channel.Connect()
		for state := channel.GetState(); state != connectivity.Ready; state = channel.GetState() {
			if !channel.WaitForStateChange(limit, state) {
				return errors.New("no connection to the gateway")
			}
		}
		l.clients = append(l.clients, pb.NewLinkageServiceClient(channel))
	}
	return nil
}

// closed makes one call after another.
func (l *loader) closed() {
	for now := time.Now(); now.Before(l.to); now = time.Now() {
		if ended, code := l.one(); !ended.Before(l.from) && ended.Before(l.to) {
			l.keep(ended.Sub(now), code)
		}
	}
}

// open starts each call when it is due, however many are in flight. The latency counts from that time, so
// a call that a slow gateway or a slow loader delays has the delay in its latency.
func (l *loader) open(start time.Time, rate float64) {
	var calling sync.WaitGroup
	for number := 0; ; number++ {
		due := start.Add(time.Duration(float64(number) / rate * float64(time.Second)))
		if !due.Before(l.to) {
			break
		}
		time.Sleep(time.Until(due))
		calling.Go(func() {
			if ended, code := l.one(); !due.Before(l.from) {
				l.keep(ended.Sub(due), code)
			}
		})
	}
	calling.Wait()
}

// one makes a call; it returns when the call ended, and its status code.
func (l *loader) one() (time.Time, string) {
	number := l.number.Add(1)
	client := l.clients[int(number)%len(l.clients)]
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	err := l.call(ctx, client, l.run+"-"+strconv.FormatInt(number, 10))
	return time.Now(), status.Code(err).String()
}

func (l *loader) keep(wait time.Duration, code string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.waits = append(l.waits, wait)
	if code != "OK" {
		l.errors[code]++
	}
}

func (l *loader) report(duration time.Duration, ticks int) report {
	slices.Sort(l.waits)
	calls := len(l.waits)
	return report{
		Calls:  calls,
		Errors: l.errors,
		Rate:   float64(calls) / duration.Seconds(),
		P50:    percentile(l.waits, 50),
		P90:    percentile(l.waits, 90),
		P99:    percentile(l.waits, 99),
		CPU:    float64(ticks) * 1e6 / ticksHz / math.Max(float64(calls), 1),
	}
}

// percentile returns the smallest latency, in milliseconds, that is at least as long as `percent` of all.
func percentile(sorted []time.Duration, percent float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := int(math.Ceil(percent/100*float64(len(sorted)))) - 1
	return float64(sorted[max(at, 0)]) / float64(time.Millisecond)
}

// cpuTicks returns the CPU time of processes, user and system, with their children that have exited.
func cpuTicks(pids string) (int, error) {
	total := 0
	for pid := range strings.SplitSeq(pids, ",") {
		if pid == "" {
			continue
		}
		text, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return 0, err
		}
		// The second field is the program's name in parentheses, and can contain spaces.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:15] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			total += ticks
		}
	}
	return total, nil
}

func syncLinkage(ctx context.Context, client pb.LinkageServiceClient, id string) error {
	_, err := client.SyncLinkage(ctx, &pb.SyncLinkageRequest{
		RequestId:             id,
		BizTime:               timestamppb.Now(),
		OperateType:           pb.OperateType_OPERATE_TYPE_BIND,
		ExternalIdentityType:  pb.ExternalIdentityType_EXTERNAL_IDENTITY_TYPE_UID,
		ExternalIdentityValue: id,
		UserId:                "2160000000000001",
		BindingTargetType:     pb.BindingTargetType_BINDING_TARGET_TYPE_USER_ID,
	})
	return err
}

func bindAccount(ctx context.Context, client pb.LinkageServiceClient, id string) error {
	_, err := client.BindAccount(ctx, &pb.BindAccountRequest{
		RequestId:         id,
		MerchantAccountId: "2160400000002012",
		Type:              "TELECOM",
		SubType:           "MOBILE_SERVICE",
		Account:           &pb.BindAccountRequest_AccountId{AccountId: id},
		UserId:            "2160000000000001",
		Timestamp:         timestamppb.Now(),
	})
	return err
}

func invalid(ctx context.Context, client pb.LinkageServiceClient, id string) error {
	_, err := client.SyncLinkage(ctx, &pb.SyncLinkageRequest{RequestId: id, BizTime: timestamppb.Now()})
	return err
}
