// Package greetpb is the generated code of the greeting service; greeting.proto
// says how to make it again.
package greetpb

// The path below the module's root keeps the file's name in the registry of
// protobuf descriptors apart from every other greeting.proto.
//
//go:generate protoc -I ../../.. --go_out=../../.. --go_opt=paths=source_relative --go-grpc_out=../../.. --go-grpc_opt=paths=source_relative examples/greeting/greetpb/greeting.proto
