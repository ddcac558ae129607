package kubeapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Watcher is told what happens to the objects of a collection. Both functions
// are called by the goroutine that called [Client.Watch], never at once.
type Watcher struct {
	List   func(objects []json.RawMessage)            // all objects, at first and whenever the watch had to begin anew
	Change func(deleted bool, object json.RawMessage) // one object was added, changed or deleted
}

// Watch reports the collection at path until ctx ends, and begins anew when
// the server ends the watch or cannot be reached. It always returns ctx's error.
func (c *Client) Watch(ctx context.Context, path string, w Watcher) error {
	for ctx.Err() == nil {
		if err := c.watchOnce(ctx, path, w); err != nil {
			pause(ctx, 200*time.Millisecond)
		}
	}
	return ctx.Err()
}

func (c *Client) watchOnce(ctx context.Context, path string, w Watcher) error {
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []json.RawMessage
	}
	if err := c.Get(ctx, path, &list); err != nil {
		return err
	}
	w.List(list.Items)
	response, err := c.send(ctx, http.MethodGet, path+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion, "", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	for {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		if err := decoder.Decode(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch event.Type {
		case "ADDED", "MODIFIED":
			w.Change(false, event.Object)
		case "DELETED":
			w.Change(true, event.Object)
		case "ERROR":
			return fmt.Errorf("kubeapi: watch %s: %s", path, event.Object)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
