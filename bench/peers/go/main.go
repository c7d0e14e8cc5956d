// A gateway as a user of Go would write it: SyncLinkage with grpc-go and net/http, without a ledger,
// metrics and log.
package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "linkage.alipayhk/go/linkagev1"
)

var (
	operations = map[pb.OperateType]string{
		pb.OperateType_OPERATE_TYPE_BIND: "BIND", pb.OperateType_OPERATE_TYPE_UNBIND: "UNBIND",
	}
	identities = map[pb.ExternalIdentityType]string{
		pb.ExternalIdentityType_EXTERNAL_IDENTITY_TYPE_UID:   "UID",
		pb.ExternalIdentityType_EXTERNAL_IDENTITY_TYPE_PHONE: "PHONE",
	}
	targets = map[pb.BindingTargetType]string{
		pb.BindingTargetType_BINDING_TARGET_TYPE_USER_ID: "USER_ID",
		pb.BindingTargetType_BINDING_TARGET_TYPE_CARD:    "CARD",
		pb.BindingTargetType_BINDING_TARGET_TYPE_PHONE:   "PHONE",
	}
)

type body struct {
	RequestID             string `json:"requestId"`
	BizTime               int64  `json:"bizTime"`
	BizType               string `json:"bizType"`
	ExternalBindingID     string `json:"externalBindingId,omitempty"`
	OperateType           string `json:"operateType"`
	ExternalIdentityType  string `json:"externalIdentityType"`
	ExternalIdentityValue string `json:"externalIdentityValue"`
	UserID                string `json:"userId"`
	BindingTargetType     string `json:"bindingTargetType"`
	BindingTarget         string `json:"bindingTarget,omitempty"`
}

type gateway struct {
	pb.UnimplementedLinkageServiceServer
	base, path, clientID string
	key                  *rsa.PrivateKey
	alipayhk             *rsa.PublicKey
	http                 *http.Client
}

func (g *gateway) SyncLinkage(ctx context.Context, request *pb.SyncLinkageRequest) (*pb.SyncLinkageResponse, error) {
	content, err := json.Marshal(body{
		RequestID:             request.RequestId,
		BizTime:               request.BizTime.AsTime().UnixMilli(),
		BizType:               "BINDING_SYNC",
		ExternalBindingID:     request.ExternalBindingId,
		OperateType:           operations[request.OperateType],
		ExternalIdentityType:  identities[request.ExternalIdentityType],
		ExternalIdentityValue: request.ExternalIdentityValue,
		UserID:                request.UserId,
		BindingTargetType:     targets[request.BindingTargetType],
		BindingTarget:         request.BindingTarget,
	})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	response, answer, err := g.post(ctx, content)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	responseTime, err := g.verify(response.Header, answer)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	var read struct {
		Result struct{ ResultCode, ResultStatus, ResultMessage string }
	}
	if err := json.Unmarshal(answer, &read); err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	result := read.Result
	if result.ResultStatus != "S" {
		return nil, status.Error(codes.FailedPrecondition, result.ResultCode)
	}
	return &pb.SyncLinkageResponse{
		Result:       &pb.Result{Status: result.ResultStatus, Code: result.ResultCode, Message: result.ResultMessage},
		TracerId:     response.Header.Get("Tracer-Id"),
		ResponseTime: timestamppb.New(responseTime),
	}, nil
}

func (g *gateway) post(ctx context.Context, content []byte) (*http.Response, []byte, error) {
	now := time.Now().Format(time.RFC3339)
	digest := sha256.Sum256(g.signed(g.clientID, now, content))
	signature, err := rsa.SignPKCS1v15(rand.Reader, g.key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.base+g.path, bytes.NewReader(content))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Client-Id", g.clientID)
	request.Header.Set("Content-Type", "application/json; charset=UTF-8")
	request.Header.Set("Request-Time", now)
	request.Header.Set("Signature", "algorithm=RSA256,keyVersion=1,signature="+
		url.QueryEscape(base64.StdEncoding.EncodeToString(signature)))
	response, err := g.http.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response, answer, err
}

func (g *gateway) verify(header http.Header, answer []byte) (time.Time, error) {
	_, text, found := strings.Cut(header.Get("Signature"), "signature=")
	if !found {
		return time.Time{}, errors.New("the answer has no signature")
	}
	text, err := url.PathUnescape(text)
	if err != nil {
		return time.Time{}, err
	}
	signature, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return time.Time{}, err
	}
	at := header.Get("Response-Time")
	digest := sha256.Sum256(g.signed(header.Get("Client-Id"), at, answer))
	if err := rsa.VerifyPKCS1v15(g.alipayhk, crypto.SHA256, digest[:], signature); err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, at)
}

func (g *gateway) signed(clientID, at string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s\n%s.%s.%s", g.path, clientID, at, body)
}

func main() {
	g := &gateway{}
	flag.StringVar(&g.base, "base-url", "", "AlipayHK's host")
	flag.StringVar(&g.path, "path", "", "the path of BINDING_SYNC")
	flag.StringVar(&g.clientID, "client-id", "", "our client id")
	key := flag.String("signing-key", "", "our private key, PEM")
	public := flag.String("public-key", "", "AlipayHK's public key, PEM")
	flag.Parse()
	g.key = read(*key, x509.ParsePKCS8PrivateKey).(*rsa.PrivateKey)
	g.alipayhk = read(*public, x509.ParsePKIXPublicKey).(*rsa.PublicKey)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 100
	g.http = &http.Client{Transport: transport, Timeout: 4 * time.Second}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	server := grpc.NewServer()
	pb.RegisterLinkageServiceServer(server, g)
	log.Fatal(server.Serve(listener))
}

func read(file string, parse func([]byte) (any, error)) any {
	text, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		log.Fatalf("%s is not PEM", file)
	}
	key, err := parse(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	return key
}
