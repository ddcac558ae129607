package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"dubbo.apache.org/dubbo-go/v3/client"
	_ "dubbo.apache.org/dubbo-go/v3/cluster/cluster/failover"
	_ "dubbo.apache.org/dubbo-go/v3/cluster/loadbalance/random"
	"dubbo.apache.org/dubbo-go/v3/common/constant"
	_ "dubbo.apache.org/dubbo-go/v3/filter/accesslog"
	_ "dubbo.apache.org/dubbo-go/v3/filter/echo"
	_ "dubbo.apache.org/dubbo-go/v3/filter/exec_limit"
	_ "dubbo.apache.org/dubbo-go/v3/filter/generic"
	_ "dubbo.apache.org/dubbo-go/v3/filter/graceful_shutdown"
	_ "dubbo.apache.org/dubbo-go/v3/filter/token"
	_ "dubbo.apache.org/dubbo-go/v3/filter/tps"
	_ "dubbo.apache.org/dubbo-go/v3/metadata/mapping/metadata"
	"dubbo.apache.org/dubbo-go/v3/protocol"
	_ "dubbo.apache.org/dubbo-go/v3/protocol/triple"
	"dubbo.apache.org/dubbo-go/v3/protocol/triple/triple_protocol"
	_ "dubbo.apache.org/dubbo-go/v3/proxy/proxy_factory"
	_ "dubbo.apache.org/dubbo-go/v3/registry/directory"
	_ "dubbo.apache.org/dubbo-go/v3/registry/protocol"
	"dubbo.apache.org/dubbo-go/v3/server"
	"github.com/dubbogo/gost/log/logger"
	"go.uber.org/zap"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

// What protoc-gen-go-triple generates for the greeting service, as far as it is
// used here.
var (
	dubboInterface = greetpb.GreetingService_ServiceDesc.ServiceName
	dubboMethod    = greetpb.GreetingService_ServiceDesc.Methods[0].MethodName

	dubboClientInfo = client.ClientInfo{InterfaceName: dubboInterface, MethodNames: []string{dubboMethod}}
	dubboServerInfo = server.ServiceInfo{
		InterfaceName: dubboInterface,
		ServiceType:   (*dubboHandler)(nil),
		Methods: []server.MethodInfo{{
			Name:        dubboMethod,
			Type:        constant.CallUnary,
			ReqInitFunc: func() any { return new(greetpb.SayHelloRequest) },
			MethodFunc: func(ctx context.Context, args []any, handler any) (any, error) {
				out, err := handler.(dubboHandler).SayHello(ctx, args[0].(*greetpb.SayHelloRequest))
				if err != nil {
					return nil, err
				}
				return triple_protocol.NewResponse(out), nil
			},
		}},
	}
)

type dubboHandler interface {
	SayHello(context.Context, *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error)
}

// dubboStack starts a Triple server of dubbo-go, which lasts as long as the
// process since it cannot be stopped, and a client of it.
func dubboStack() (caller, error) {
	logger.SetLogger(zap.NewNop().Sugar()) // it misses protocols and registries that nobody asked for
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	triple := server.WithServerProtocol(protocol.WithTriple(), protocol.WithIp("127.0.0.1"), protocol.WithPort(addr.Port))
	s, err := server.NewServer(triple, server.WithServerNotRegister())
	if err != nil {
		return nil, err
	}
	if err := s.Register(Greeter{}, &dubboServerInfo, server.WithVersion(version)); err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }() // never ended, see above
	if err := listening(addr, served); err != nil {
		return nil, err
	}
	c, err := client.NewClient(client.WithClientProtocolTriple())
	if err != nil {
		return nil, err
	}
	conn, err := c.DialWithInfo(dubboInterface, &dubboClientInfo, client.WithURL("tri://"+addr.String()), client.WithVersion(version))
	if err != nil {
		return nil, err
	}
	call := func() error {
		out := new(greetpb.SayHelloReply)
		err := conn.CallUnary(context.Background(), []any{&greetpb.SayHelloRequest{Name: payload}}, out, dubboMethod)
		if err == nil && len(out.GetMessage()) != len(payload) {
			err = fmt.Errorf("the answer has %d bytes", len(out.GetMessage()))
		}
		return err
	}
	return call, call()
}

// freeAddress finds a port for a server that takes no listener.
func freeAddress() (*net.TCPAddr, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return lis.Addr().(*net.TCPAddr), lis.Close()
}

func listening(addr *net.TCPAddr, served <-chan error) error {
	for range 200 {
		select {
		case err := <-served:
			return fmt.Errorf("dubbo-go's server returned: %w", err)
		case <-time.After(25 * time.Millisecond):
		}
		if conn, err := net.Dial("tcp", addr.String()); err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("dubbo-go's server does not listen on %s", addr)
}
