// Package proxyless is the decoders and the coverage report of the root module
// again: every file but this one is a symbolic link to the file of that name
// there. The tests here alter one field after the other of messages of
// go-control-plane, which the root module must not require, and look whether
// the decoders notice: that is where coverageTable comes from, and what holds
// it to the decoders. When a file names something of one that is not linked,
// this package no longer compiles: add the link.
package proxyless
