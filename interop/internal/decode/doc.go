// Package proxyless is the decoders of the root module again: every file but
// this one is a symbolic link to the file of that name there. The tests here
// decode the same bytes with those decoders, which are unexported, and with the
// generated types of go-control-plane, which the root module must not require,
// and compare everything that is kept. When a decoder names something of a file
// that is not linked, this package no longer compiles: add the link.
package proxyless
