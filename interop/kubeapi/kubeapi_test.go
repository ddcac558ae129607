package kubeapi

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// serve returns a client of a server that answers with handler.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	client, err := New(server.URL, "secret", roots)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestParse(t *testing.T) {
	objects, err := Parse([]byte("# first\n---\napiVersion: v1\nkind: A\nmetadata: {name: a}\n--- # next\n---\napiVersion: v1\nkind: B\nmetadata: {name: b, namespace: space}\ndata: {x: '---'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != 2 || objects[0].text("kind") != "A" || objects[1].meta("namespace") != "space" {
		t.Errorf("got %v", objects)
	}
	for _, bad := range []string{"kind: A", "apiVersion: v1\nkind: A", "- list", "a: [", "\tx"} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestApplyFindsThePath asks the server under which path a kind lives.
func TestApplyFindsThePath(t *testing.T) {
	var applied []string
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/apis/example.org/v1":
			fmt.Fprint(w, `{"resources": [{"name": "things", "kind": "Thing", "namespaced": true}, {"name": "things/status", "kind": "Thing"}, {"name": "worlds", "kind": "World"}]}`)
		default:
			applied = append(applied, r.Method+" "+r.URL.Path)
		}
	})
	manifest := "apiVersion: example.org/v1\nkind: %s\nmetadata: {name: x}\n"
	err := client.Apply(t.Context(), []byte(fmt.Sprintf(manifest, "Thing")+"---\n"+fmt.Sprintf(manifest, "World")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(applied, ", "), "PATCH /apis/example.org/v1/namespaces/default/things/x, PATCH /apis/example.org/v1/worlds/x"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRefusalIsTold(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind": "Status", "message": "no such thing"}`)
	})
	err := client.Get(t.Context(), "/api/v1/things/x", nil)
	if !IsNotFound(err) || IsConflict(err) || !strings.Contains(err.Error(), "GET /api/v1/things/x: 404 no such thing") {
		t.Errorf("got %v", err)
	}
}

// TestWatchBeginsAnew ends a watch, which lists again and goes on.
func TestWatchBeginsAnew(t *testing.T) {
	watches := 0
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("watch") == "" {
			fmt.Fprint(w, `{"metadata": {"resourceVersion": "7"}, "items": ["a"]}`)
			return
		}
		watches++
		fmt.Fprintf(w, `{"type": "ADDED", "object": "v%s-%d"}{"type": "DELETED", "object": "gone"}`, r.FormValue("resourceVersion"), watches)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var told []string
	err := client.Watch(ctx, "/things", Watcher{
		List: func(objects []json.RawMessage) { told = append(told, fmt.Sprintf("list %s", objects)) },
		Change: func(deleted bool, object json.RawMessage) {
			told = append(told, fmt.Sprintf("%v %s", deleted, object))
			if len(told) == 6 {
				cancel()
			}
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	want := `list ["a"], false "v7-1", true "gone", list ["a"], false "v7-2", true "gone"`
	if got := strings.Join(told, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
