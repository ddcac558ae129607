package proxyless

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// foreignPeers are the callers that came through grpc.Creds of the user's, which
// take the gate's place. What the mesh asks of them is judged by what those
// credentials tell of each call.
type foreignPeers struct {
	mu     sync.Mutex
	policy *portPolicy // under which they were judged
	known  map[foreignPeer]*foreignJudgment
}

// foreignPeer is a connection that showed a certificate.
type foreignPeer struct {
	leaf          *x509.Certificate
	remote, local netip.AddrPort
}

// mostForeignPeers bounds how many are remembered.
const mostForeignPeers = 1000

// foreignJudgment is the chain that takes a caller, or why none does.
type foreignJudgment struct {
	chain *filterChain
	facts peerFacts
	err   error
}

// adviceOwnCreds is what to do about credentials that do not do what the mesh
// asks for.
const adviceOwnCreds = "remove grpc.Creds from the server options, so that the mesh's TLS is spoken; or set PeerAuthentication to DISABLE"

// judgeForeign judges a call that did not come through the gate.
func (g *gate) judgeForeign(ctx context.Context, p *peer.Peer, method string) (context.Context, error) {
	policy := g.policy.Load()
	if policy == nil {
		return nil, &Error{Stage: StageProvider, Resource: orNoAddr(p.LocalAddr).String(), Reason: "the mesh has not said yet what is asked of callers", Err: ErrNotReady}
	}
	if policy.rules == nil {
		return nil, nil
	}
	j := g.foreignJudgment(ctx, policy, p)
	if j.err != nil {
		g.deny(method, &j.facts, j.err.Error())
		g.hushed.say(j.err.Error(), func(more uint64) {
			g.log.Error("calls are refused: grpc.Creds among the server options do not do what the mesh asks for",
				keyError, j.err.Error(), "not_logged_before", more, "advice", adviceOwnCreds)
		})
		return nil, errDenied
	}
	var own context.Context
	if j.facts.verified {
		own = context.WithValue(ctx, provenKey{}, &j.facts)
		ctx = own
	}
	if j.chain.failure == "" && len(j.chain.filters) == 0 {
		return own, nil
	}
	judged, err := g.ask(ctx, j.chain, &j.facts, method)
	if err == nil && judged == nil {
		judged = own
	}
	return judged, err
}

// provenKey is the context key of the *peerFacts of a caller whose certificate
// was verified with the mesh's roots, and not by the gate.
type provenKey struct{}

func orNoAddr(a net.Addr) net.Addr {
	if a == nil {
		return &net.UnixAddr{}
	}
	return a
}

// foreignJudgment judges a connection once, where its certificate tells it from
// others.
func (g *gate) foreignJudgment(ctx context.Context, policy *portPolicy, p *peer.Peer) *foreignJudgment {
	info, isTLS := p.AuthInfo.(credentials.TLSInfo)
	if !isTLS || len(info.State.PeerCertificates) == 0 {
		return g.judgeConnection(ctx, policy, p)
	}
	who := foreignPeer{info.State.PeerCertificates[0], addrPortOf(p.Addr), addrPortOf(p.LocalAddr)}
	f := &g.foreign
	f.mu.Lock()
	if f.policy != policy || len(f.known) >= mostForeignPeers {
		f.policy, f.known = policy, map[foreignPeer]*foreignJudgment{}
	}
	j := f.known[who]
	f.mu.Unlock()
	if j != nil {
		return j
	}
	j = g.judgeConnection(ctx, policy, p)
	f.mu.Lock()
	if f.policy == policy {
		f.known[who] = j
	}
	f.mu.Unlock()
	return j
}

// judgeConnection finds the chain that takes a caller as the user's credentials
// describe it.
func (g *gate) judgeConnection(ctx context.Context, policy *portPolicy, p *peer.Peer) *foreignJudgment {
	j := &foreignJudgment{facts: peerFacts{remote: addrPortOf(p.Addr), local: addrPortOf(p.LocalAddr)}}
	traits := plainGRPC(j.facts.local)
	switch info := p.AuthInfo.(type) {
	case nil:
	case credentials.TLSInfo:
		j.facts.encrypted, j.facts.serverName = true, info.State.ServerName
		traits = meshTLS(j.facts.local)
		traits.serverName = info.State.ServerName
	default:
		if info.AuthType() != "insecure" {
			j.err = errors.New("credentials of the type " + info.AuthType() + " do not tell who the caller is in the mesh")
			return j
		}
	}
	traits.from = j.facts.remote
	if j.chain, j.err = policy.chainFor(&traits); j.err == nil && j.facts.encrypted {
		j.err = g.verifyForeign(ctx, j, p.AuthInfo.(credentials.TLSInfo))
	}
	return j
}

// verifyForeign asks of the certificate that the user's credentials were shown
// what the mesh asks of it.
func (g *gate) verifyForeign(ctx context.Context, j *foreignJudgment, info credentials.TLSInfo) error {
	t, chain := j.chain.tls, info.State.PeerCertificates
	if err := t.objection(info.State.ServerName); err != nil {
		return err
	}
	if len(chain) == 0 {
		if t.demands {
			return errors.New("the caller showed no certificate: the credentials have to ask for one")
		}
		return nil
	}
	if err := g.secrets.verifyPeer(ctx, t, chain, x509ClientAuth, time.Now()); err != nil {
		return err
	}
	if t.roots.kind != secretNone {
		j.facts.verified, j.facts.names = true, principalNames(chain[0])
	}
	return nil
}

// meshTLS are the traits of a connection that another workload of the mesh
// opens with mutual TLS.
func meshTLS(to netip.AddrPort) connTraits {
	return connTraits{to: to, transport: overTLS, protocols: []string{"istio-h2", "istio", "h2"}}
}
