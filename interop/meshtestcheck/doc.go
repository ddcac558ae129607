// Package meshtestcheck holds the tests of package meshtest's encoders against
// the generated types of go-control-plane, which the root module must not
// require. They need no control plane and no privileges.
package meshtestcheck
