package meshtest

import "strings"

// protocol is what istiod concludes from the name of a port.
type protocol uint8

const (
	sniffed protocol = iota // no name that says anything: found out by each connection
	http1
	http2
	tcp
	tlsProtocol // and https: told apart by the server name
	udp
)

var protocols = map[string]protocol{
	"http": http1, "http2": http2, "grpc": http2, "tcp": tcp, "tls": tlsProtocol, "https": tlsProtocol,
	"mongo": tcp, "mysql": tcp, "redis": tcp, "udp": udp,
}

// protocol is that of the name's part before the first hyphen.
func (p Port) protocol() protocol {
	name := strings.ToLower(p.Name)
	if name == "grpc-web" || strings.HasPrefix(name, "grpc-web-") {
		return http1
	}
	prefix, _, _ := strings.Cut(name, "-")
	return protocols[prefix]
}

// http says that calls are told apart by their virtual host.
func (p protocol) http() bool { return p == http1 || p == http2 || p == sniffed }

// options is the protocol part of HttpProtocolOptions, and whether istiod sends
// it where there is nothing else to say.
func (p protocol) options(streams uint32) (message []byte, given bool) {
	switch p {
	case http2:
		return explicitHTTP2(streams), true
	case sniffed:
		return appendMessage(nil, 4, appendMessage(appendMessage(nil, 1, nil), 2, nil)), true
	default:
		return appendMessage(nil, 3, appendMessage(nil, 1, nil)), false
	}
}
