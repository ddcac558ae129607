package proxyless

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
)

// session is one attempt at a stream, from dialling to its end.
type session struct {
	// Constant after construction.
	address string
	delta   bool // the protocol: else state of the world
	events  chan event
	node    nodeMessage
	since   time.Time
	cancel  context.CancelFunc

	// Owned by the ADS loop.
	greeted  bool // the first request, which carries the node, is out
	opened   bool // the stream did
	answered bool // a response came
	roots    rootsAsked

	// Written by talk before its first event, read after its last.
	token, tokenPath string
	tokenErr         error

	outbox  outbox
	workers sync.WaitGroup
}

type eventKind uint8

const (
	eventEnd eventKind = iota
	eventOpen
	eventMessage
)

type event struct {
	kind    eventKind
	message []byte
	err     error
}

// dial begins a session with the replica whose turn it is.
func (a *ads) dial(ctx context.Context) *session {
	ctx, cancel := context.WithCancel(ctx)
	replicas := a.config.ControlPlanes
	s := &session{address: replicas[a.attempts%len(replicas)], events: make(chan event), node: a.config.Node.message(), since: time.Now(), cancel: cancel}
	s.delta = a.config.View == ViewFull && !a.sotwOnly[s.address] // istiod's lean view goes stale in delta
	s.outbox.ready = make(chan struct{}, 1)
	s.workers.Add(1)
	go func() { // ends with ctx; joined by session.close
		defer s.workers.Done()
		err := a.talk(ctx, s)
		s.emit(ctx, event{kind: eventEnd, err: withoutToken(err, s.token)})
	}()
	return s
}

func (s *session) close() {
	s.cancel()
	s.workers.Wait()
}

func (s *session) emit(ctx context.Context, e event) {
	select {
	case s.events <- e:
	case <-ctx.Done():
	}
}

// request queues a request; it never blocks.
func (s *session) request(r *adsRequest) {
	if !s.greeted {
		s.greeted = true
		r.node = &s.node
	}
	s.outbox.put(r.append(nil))
}

// decode reads a response in the protocol of the stream.
func (s *session) decode(message []byte) (adsResponse, error) {
	if s.delta {
		return decodeDeltaResponse(message)
	}
	return decodeADSResponse(message)
}

// talk connects, opens the stream and receives until it ends.
func (a *ads) talk(ctx context.Context, s *session) error {
	header := metadata.MD{}
	plain := a.config.plainTextTo(s.address)
	transport := insecure.NewCredentials()
	if !plain {
		config, err := a.tlsConfig(s.address)
		if err != nil {
			return err
		}
		transport = credentials.NewTLS(config)
		// istiod may not ask for a token: that there is none only explains a refusal.
		if s.token, s.tokenPath, s.tokenErr = readToken(a.config, a.readFile); s.tokenErr == nil {
			header.Set("authorization", "Bearer "+s.token)
		}
	}
	if id := a.config.Node.ClusterID; id != "" {
		header.Set("clusterid", id)
	}
	conn, err := grpc.NewClient(dialTarget(s.address), a.dialOptions(transport)...)
	if err != nil {
		return &Error{Stage: StageConfig, Resource: "ControlPlanes", Reason: fmt.Sprintf("%q cannot be dialled", s.address), Err: err}
	}
	defer conn.Close()
	open, abandon := context.WithCancel(ctx)
	defer abandon()
	stop := time.AfterFunc(connectTimeout, abandon)
	method := sotwMethod
	if s.delta {
		method = deltaMethod
	}
	stream, err := conn.NewStream(metadata.NewOutgoingContext(open, header), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		if !stop.Stop() {
			err = fmt.Errorf("no connection within %v", connectTimeout)
		}
		return err
	}
	stop.Stop()
	return s.converse(ctx, stream)
}

// converse receives on this goroutine and sends on another.
func (s *session) converse(ctx context.Context, stream grpc.ClientStream) error {
	s.workers.Add(1)
	go func() { // ends with ctx, which session.close ends; joined there
		defer s.workers.Done()
		s.outbox.drain(ctx, stream)
	}()
	s.emit(ctx, event{kind: eventOpen})
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err != nil {
			return err
		}
		s.emit(ctx, event{kind: eventMessage, message: message})
	}
}

func dialTarget(address string) string {
	if isUnix(address) {
		return address
	}
	return "dns:///" + address
}

func (a *ads) dialOptions(transport credentials.TransportCredentials) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithUserAgent("proxyless"),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(maxResponse)),
	}, a.config.ControlPlaneDialOptions...)
}

// tlsConfig verifies istiod with the root certificates as they are now.
func (a *ads) tlsConfig(address string) (*tls.Config, error) {
	config, err := verifying(a.config.serverNameFor(address), a.config.RootCertFile, a.config.InsecureSkipVerify, a.readFile)
	if err != nil {
		err.Stage, err.Resource = StageControlPlane, address
		return nil, err
	}
	return config, nil
}

// verifying is the TLS of a control plane or certificate authority that must
// have a name. The stage and the resource of the error are the caller's.
func verifying(serverName, rootFile string, skip bool, readFile func(string) ([]byte, error)) (*tls.Config, *Error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if skip {
		config.InsecureSkipVerify = true
		return config, nil
	}
	if rootFile == SystemRoots {
		return config, nil
	}
	pem, err := readFile(rootFile)
	if err != nil {
		e := &Error{Reason: "its certificate cannot be verified: no root certificates", Err: err}
		if errors.Is(err, fs.ErrNotExist) {
			e.Advice = fmt.Sprintf("mount the ConfigMap istio-ca-root-cert at %s, or set RootCertFile to %s for the system's roots", rootFile, SystemRoots)
		}
		return nil, e
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, &Error{Reason: rootFile + " holds no PEM certificate", Advice: "it must be the ConfigMap istio-ca-root-cert's root-cert.pem"}
	}
	return config, nil
}

// outbox decouples the ADS loop from the stream's flow control: a control
// plane that does not read must not keep the loop from receiving.
type outbox struct {
	mu    sync.Mutex
	queue [][]byte
	ready chan struct{} // holds a token while queue is not empty
}

func (o *outbox) put(message []byte) {
	o.mu.Lock()
	o.queue = append(o.queue, message)
	o.mu.Unlock()
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// drain sends until ctx ends or the stream is broken, which its receiver sees.
func (o *outbox) drain(ctx context.Context, stream grpc.ClientStream) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.ready:
		}
		o.mu.Lock()
		queue := o.queue
		o.queue = nil
		o.mu.Unlock()
		for i := range queue {
			if stream.SendMsg(&queue[i]) != nil {
				return
			}
		}
	}
}

// rawCodec passes the stream's messages as bytes: requests are encoded and
// responses decoded by hand.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
