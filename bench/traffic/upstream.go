package main

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

const (
	jsonType = "application/json; charset=UTF-8"
	success  = `{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}`
	bound    = `{"result":{"resultStatus":"S","resultCode":"0000","resultMessage":"SUCCESS"},"needBind":"true"}`
)

// answer is a header-signed answer. The signature covers the time, but not the request.
type answer struct {
	time, encrypt, signature string
	body                     []byte
}

// wallet plays AlipayHK.
type wallet struct {
	clientID, syncPath string
	key                *rsa.PrivateKey
	gateway            *rsa.PublicKey
	plain, encrypted   atomic.Pointer[answer]
	traced             atomic.Int64
}

func upstream(args []string) error {
	flags := flag.NewFlagSet("upstream", flag.ExitOnError)
	keyFile := flags.String("key", "", "AlipayHK's private key, PEM")
	gatewayFile := flags.String("gateway-key", "", "the gateway's public key, PEM")
	w := &wallet{}
	flags.StringVar(&w.clientID, "client-id", "", "the client id of the gateway")
	flags.StringVar(&w.syncPath, "sync-path", "", "the path of SyncLinkage; every other path is BindAccount's")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if w.key, err = readKey[*rsa.PrivateKey](*keyFile, x509.ParsePKCS8PrivateKey); err != nil {
		return err
	}
	if w.gateway, err = readKey[*rsa.PublicKey](*gatewayFile, x509.ParsePKIXPublicKey); err != nil {
		return err
	}
	if err := w.signAhead(); err != nil {
		return err
	}
	go func() {
		for range time.Tick(time.Second) {
			if err := w.signAhead(); err != nil {
				panic(err)
			}
		}
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	paths := http.NewServeMux()
	paths.HandleFunc("POST "+w.syncPath, w.sync)
	paths.HandleFunc("POST /", w.bind)
	return http.Serve(listener, paths)
}

// signAhead signs the answers of the next second: a plain one, and an encrypted one.
func (w *wallet) signAhead() error {
	now := time.Now().UTC().Format(time.RFC3339)
	plain := &answer{time: now, body: []byte(success)}
	encrypted := &answer{time: now}
	var err error
	if encrypted.encrypt, encrypted.body, err = w.encrypt([]byte(success)); err != nil {
		return err
	}
	for _, each := range []*answer{plain, encrypted} {
		content := fmt.Sprintf("POST %s\n%s.%s.%s", w.syncPath, w.clientID, now, each.body)
		signature, err := w.sign([]byte(content))
		if err != nil {
			return err
		}
		each.signature = "algorithm=RSA256,keyVersion=1,signature=" + signature
	}
	w.plain.Store(plain)
	w.encrypted.Store(encrypted)
	return nil
}

// sync answers SyncLinkage. The Tracer-Id is unique, because the gateway refuses a repeated answer.
func (w *wallet) sync(out http.ResponseWriter, request *http.Request) {
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return
	}
	header, signed := out.Header(), w.plain.Load()
	if request.Header.Get("Encrypt") != "" {
		signed = w.encrypted.Load()
		header.Set("Encrypt", signed.encrypt)
	}
	header.Set("Client-Id", w.clientID)
	header.Set("Content-Type", jsonType)
	header.Set("Response-Time", signed.time)
	header.Set("Signature", signed.signature)
	header.Set("Tracer-Id", fmt.Sprintf("bench%020d", w.traced.Add(1)))
	_, _ = out.Write(signed.body)
}

// bind answers BindAccount. The answer repeats the request's id, so it is signed now.
func (w *wallet) bind(out http.ResponseWriter, request *http.Request) {
	var envelope struct {
		Request struct {
			Head struct{ Function, Version, ReqMsgID string }
		}
	}
	if err := json.NewDecoder(request.Body).Decode(&envelope); err != nil {
		http.Error(out, "not JSON", http.StatusBadRequest)
		return
	}
	head, now := envelope.Request.Head, time.Now().UTC().Format(time.RFC3339)
	content := fmt.Sprintf(
		`{"head":{"clientId":%q,"function":%q,"reserve":"{}","respTime":%q,"version":%q,"reqMsgId":%q},"body":%s}`,
		w.clientID, head.Function, now, head.Version, head.ReqMsgID, bound)
	signature, err := w.sign([]byte(content))
	if err != nil {
		http.Error(out, "not signed", http.StatusInternalServerError)
		return
	}
	out.Header().Set("Content-Type", jsonType)
	_, _ = fmt.Fprintf(out, `{"response":%s,"signature":%q}`, content, signature)
}

// sign returns the signature as percent-encoded base64.
func (w *wallet) sign(content []byte) (string, error) {
	digest := sha256.Sum256(content)
	signature, err := rsa.SignPKCS1v15(rand.Reader, w.key, crypto.SHA256, digest[:])
	return url.QueryEscape(base64.StdEncoding.EncodeToString(signature)), err
}

// encrypt returns the header Encrypt and the body: AES-256 in ECB mode with PKCS #7 padding, the profile
// that the gateway has by default.
func (w *wallet) encrypt(plaintext []byte) (string, []byte, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", nil, err
	}
	cipher, err := aes.NewCipher(key)
	if err != nil {
		return "", nil, err
	}
	size := aes.BlockSize - len(plaintext)%aes.BlockSize
	padded := append(bytes.Clone(plaintext), bytes.Repeat([]byte{byte(size)}, size)...)
	for at := 0; at < len(padded); at += aes.BlockSize {
		cipher.Encrypt(padded[at:], padded[at:at+aes.BlockSize])
	}
	wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, w.gateway, key)
	if err != nil {
		return "", nil, err
	}
	text := url.QueryEscape(base64.StdEncoding.EncodeToString(wrapped))
	header := "algorithm=RSA_AES,keyVersion=1,symmetricKey=" + text
	return header, []byte(base64.StdEncoding.EncodeToString(padded)), nil
}

func readKey[K any](file string, parse func([]byte) (any, error)) (K, error) {
	var none K
	text, err := os.ReadFile(file)
	if err != nil {
		return none, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return none, fmt.Errorf("%s is not PEM", file)
	}
	parsed, err := parse(block.Bytes)
	if err != nil {
		return none, err
	}
	key, ok := parsed.(K)
	if !ok {
		return none, fmt.Errorf("%s has another kind of key", file)
	}
	return key, nil
}
