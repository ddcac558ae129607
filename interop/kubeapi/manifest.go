package kubeapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// fieldManager owns what [Client.Apply] sets.
const fieldManager = "proxyless-lab"

// Object is a Kubernetes object as JSON has it.
type Object map[string]any

// Parse splits a manifest of one or more YAML documents into objects. Empty
// documents are passed over.
func Parse(manifest []byte) ([]Object, error) {
	var objects []Object
	for i, document := range splitDocuments(manifest) {
		var object Object
		if err := yaml.Unmarshal(document, &object); err != nil {
			return nil, fmt.Errorf("kubeapi: document %d: %w", i+1, err)
		}
		if len(object) == 0 {
			continue
		}
		if object.text("kind") == "" || object.text("apiVersion") == "" || object.meta("name") == "" {
			return nil, fmt.Errorf("kubeapi: document %d lacks apiVersion, kind or metadata.name", i+1)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// Apply makes the API server hold every object of the manifest (server-side
// apply; fields that someone else owns are taken over). An object without a
// namespace goes to "default".
func (c *Client) Apply(ctx context.Context, manifest []byte) error {
	objects, err := Parse(manifest)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := c.ApplyObject(ctx, object); err != nil {
			return err
		}
	}
	return nil
}

// ApplyObject applies one object.
func (c *Client) ApplyObject(ctx context.Context, object Object) error {
	path, err := c.path(ctx, object)
	if err != nil {
		return err
	}
	query := url.Values{"fieldManager": {fieldManager}, "force": {"true"}}
	return c.Do(ctx, http.MethodPatch, path+"?"+query.Encode(), Apply, object, nil)
}

// DeleteManifest removes every object of the manifest, the last one first.
// What is gone already is no error.
func (c *Client) DeleteManifest(ctx context.Context, manifest []byte) error {
	objects, err := Parse(manifest)
	if err != nil {
		return err
	}
	var failures []error
	for i := len(objects) - 1; i >= 0; i-- {
		path, err := c.path(ctx, objects[i])
		if err == nil {
			err = c.Delete(ctx, path, -1)
		}
		if err != nil && !IsNotFound(err) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// resource says under which path objects of a kind live.
type resource struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Namespaced bool   `json:"namespaced"`
}

// path returns where the object lives. A kind that the server does not know is
// asked for again for some seconds: its definition may have just been applied.
func (c *Client) path(ctx context.Context, object Object) (string, error) {
	version, kind := object.text("apiVersion"), object.text("kind")
	found, err := c.resource(ctx, version, kind)
	for attempt := 0; err != nil && attempt < 50 && ctx.Err() == nil; attempt++ {
		pause(ctx, 100*time.Millisecond)
		found, err = c.resource(ctx, version, kind)
	}
	if err != nil {
		return "", err
	}
	path := groupPath(version)
	if found.Namespaced {
		namespace := object.meta("namespace")
		if namespace == "" {
			namespace = "default"
		}
		path += "/namespaces/" + namespace
	}
	return path + "/" + found.Name + "/" + object.meta("name"), nil
}

func (c *Client) resource(ctx context.Context, version, kind string) (resource, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found, ok := c.resources[version+" "+kind]; ok {
		return found, nil
	}
	var list struct{ Resources []resource }
	if err := c.Get(ctx, groupPath(version), &list); err != nil {
		return resource{}, err
	}
	for _, r := range list.Resources {
		if !strings.Contains(r.Name, "/") { // no subresource
			c.resources[version+" "+r.Kind] = r
		}
	}
	found, ok := c.resources[version+" "+kind]
	if !ok {
		return resource{}, fmt.Errorf("kubeapi: the server has no %s of %s", kind, version)
	}
	return found, nil
}

func groupPath(version string) string {
	if !strings.Contains(version, "/") {
		return "/api/" + version
	}
	return "/apis/" + version
}

func (o Object) text(key string) string {
	text, _ := o[key].(string)
	return text
}

func (o Object) meta(key string) string {
	metadata, _ := o["metadata"].(map[string]any)
	text, _ := metadata[key].(string)
	return text
}

// splitDocuments cuts at lines that are "---", with or without a comment.
func splitDocuments(manifest []byte) [][]byte {
	var documents [][]byte
	var current []byte
	for line := range bytes.Lines(manifest) {
		if rest, ok := bytes.CutPrefix(line, []byte("---")); ok && separates(rest) {
			documents = append(documents, current)
			current = nil
			continue
		}
		current = append(current, line...)
	}
	return append(documents, current)
}

func separates(rest []byte) bool {
	rest = bytes.TrimSpace(rest)
	return len(rest) == 0 || rest[0] == '#'
}
