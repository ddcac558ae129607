// Package interop holds the tests of proxyless against a real istiod. The
// control plane is brought up by package lab; README.md says what that takes.
package interop
