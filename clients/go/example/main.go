// Command example makes one SyncLinkage call, and prints OK or the error's outcome, reason and retry.
//
//	go run ./example [-ca FILE [-cert FILE -key FILE]] TARGET USER_ID
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"
	"linkage.alipayhk/go/linkage"
	"linkage.alipayhk/go/linkagev1"
)

func main() {
	ca := flag.String("ca", "", "the CA of the gateway's certificate, PEM; if empty, the call is in plaintext")
	cert := flag.String("cert", "", "the client certificate, PEM")
	key := flag.String("key", "", "the private key of -cert, PEM")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: example [-ca FILE [-cert FILE -key FILE]] TARGET USER_ID")
		os.Exit(2)
	}
	err := bind(*ca, *cert, *key, flag.Arg(0), flag.Arg(1))
	if failed, ok := errors.AsType[*linkage.Error](err); ok {
		fmt.Println(failed.Outcome, cmp.Or(failed.Reason, "-"), failed.Retry)
		fmt.Fprintln(os.Stderr, failed)
		os.Exit(1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Println("OK")
}

func bind(ca, cert, key, target, userID string) error {
	transport, err := connection(ca, cert, key)
	if err != nil {
		return err
	}
	client, err := linkage.New(target, transport)
	if err != nil {
		return err
	}
	defer client.Close()
	// A real caller stores the id and the content until it knows the outcome, because a retry repeats both.
	id := "example-" + rand.Text()
	_, err = client.SyncLinkage(context.Background(), &linkagev1.SyncLinkageRequest{
		RequestId:             id,
		BizTime:               timestamppb.New(time.Now()),
		OperateType:           linkagev1.OperateType_OPERATE_TYPE_BIND,
		ExternalIdentityType:  linkagev1.ExternalIdentityType_EXTERNAL_IDENTITY_TYPE_UID,
		ExternalIdentityValue: id,
		UserId:                userID,
		BindingTargetType:     linkagev1.BindingTargetType_BINDING_TARGET_TYPE_USER_ID,
	})
	return err
}

func connection(ca, cert, key string) (credentials.TransportCredentials, error) {
	switch {
	case cert != "" || key != "":
		return linkage.MutualTLS(ca, cert, key)
	case ca != "":
		return linkage.TLS(ca)
	}
	return linkage.Plaintext(), nil
}
