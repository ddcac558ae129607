// Package kubeapi is a client of the Kubernetes API in plain HTTP and JSON,
// as large as the lab needs it: read, write, apply a manifest, watch.
package kubeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// The content types of a body, which decide what a PATCH means.
const (
	JSON       = "application/json"
	MergePatch = "application/merge-patch+json"
	Apply      = "application/apply-patch+yaml"
)

// Client talks to one API server with one bearer token. It may be used by
// several goroutines.
type Client struct {
	// constant after construction
	base  string
	token string
	http  *http.Client

	mu        sync.Mutex
	resources map[string]resource // by "apiVersion kind"; guarded by mu
}

// New returns a client of the API server at base ("https://host:port") that
// trusts the given PEM roots and presents token.
func New(base, token string, roots []byte) (*Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("kubeapi: no certificate in the given roots")
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		ForceAttemptHTTP2: true,
	}
	return &Client{
		base:      base,
		token:     token,
		http:      &http.Client{Transport: transport},
		resources: map[string]resource{},
	}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get reads the object at path into into, which may be nil.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	return c.Do(ctx, http.MethodGet, path, "", nil, into)
}

// Create posts body to the collection at path.
func (c *Client) Create(ctx context.Context, path string, body, into any) error {
	return c.Do(ctx, http.MethodPost, path, JSON, body, into)
}

// Patch merges body into the object at path (RFC 7386).
func (c *Client) Patch(ctx context.Context, path string, body any) error {
	return c.Do(ctx, http.MethodPatch, path, MergePatch, body, nil)
}

// Delete removes the object at path. A negative grace leaves the grace period,
// in seconds, to the object.
func (c *Client) Delete(ctx context.Context, path string, grace int) error {
	options := map[string]any{"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
	if grace >= 0 {
		options["gracePeriodSeconds"] = grace
	}
	return c.Do(ctx, http.MethodDelete, path, JSON, options, nil)
}

// Do sends one request and decodes the answer into into, where it is not nil.
// A status of 400 and above is returned as *[Error].
func (c *Client) Do(ctx context.Context, method, path, contentType string, body, into any) error {
	response, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("kubeapi: %s %s: %w", method, path, err)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("kubeapi: %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path, contentType string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("kubeapi: %s %s: %w", method, path, err)
		}
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	request.Header.Set("Accept", JSON)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 400 {
		defer response.Body.Close()
		return nil, refusal(method, path, response)
	}
	return response, nil
}

// Error is a request that the API server refused.
type Error struct {
	Code    int    // HTTP status
	Message string // the server's sentence
	Request string // method and path
}

func (e *Error) Error() string {
	return fmt.Sprintf("kubeapi: %s: %d %s", e.Request, e.Code, e.Message)
}

// IsNotFound says that err is a 404 of the API server.
func IsNotFound(err error) bool { return hasCode(err, http.StatusNotFound) }

// IsConflict says that err is a 409 of the API server: the object is there
// already, or was changed meanwhile.
func IsConflict(err error) bool { return hasCode(err, http.StatusConflict) }

// IsForbidden says that err is a 403 of the API server.
func IsForbidden(err error) bool { return hasCode(err, http.StatusForbidden) }

func hasCode(err error, code int) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

func refusal(method, path string, response *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	var status struct{ Message string }
	message := strings.TrimSpace(string(data))
	if json.Unmarshal(data, &status) == nil && status.Message != "" {
		message = status.Message
	}
	return &Error{Code: response.StatusCode, Message: message, Request: method + " " + path}
}
