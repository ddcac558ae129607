package meshtest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

// piped is both ends of a connection.
func piped(t *testing.T) (client, server net.Conn) {
	p := meshtest.NewPipe()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := p.Accept()
		accepted <- conn
	}()
	client, err := p.DialContext(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return client, <-accepted
}

// TestPipeConnectionsAreThoseOfASocket: what was written is read after the
// writer is gone, and what nobody reads holds up the writer in the end.
func TestPipeConnectionsAreThoseOfASocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := piped(t)
		if n, err := client.Write([]byte("hello")); n != 5 || err != nil {
			t.Fatal(n, err)
		}
		client.Close()
		if got, err := io.ReadAll(server); string(got) != "hello" || err != nil {
			t.Errorf("%q %v", got, err)
		}
		if _, err := server.Write([]byte("late")); err == nil {
			t.Error("what is written to who is gone does not fail")
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading what was closed here: %v", err)
		}

		client, server = piped(t)
		client.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := client.Write(make([]byte, 1<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n != 256<<10 {
			t.Errorf("%d bytes wait, then %v", n, err)
		}
		client.SetWriteDeadline(time.Time{})
		go func() {
			client.Write(make([]byte, 1<<20))
			client.Close()
		}()
		if got, err := io.ReadAll(server); len(got) != n+1<<20 || err != nil {
			t.Errorf("%d bytes read, then %v", len(got), err)
		}
	})
}

// TestWritesToAPipeStayWhole, whoever else writes and however often they wait.
func TestWritesToAPipeStayWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := piped(t)
		const size, writers = 1 << 20, 4
		var all sync.WaitGroup
		for n := range writers {
			all.Go(func() { client.Write(bytes.Repeat([]byte{byte(n)}, size)) })
		}
		go func() {
			all.Wait()
			client.Close()
		}()
		got, err := io.ReadAll(server)
		if len(got) != writers*size || err != nil {
			t.Fatalf("%d bytes read, then %v", len(got), err)
		}
		for part := range slices.Chunk(got, size) {
			if bytes.Count(part, part[:1]) != size {
				t.Fatal("one write came between another")
			}
		}
	})
}

// TestPipeDeadlines: one wakes who waits already, and its end lets them wait again.
func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := piped(t)
		defer server.Close()
		defer client.Close()
		read := make(chan error)
		one := func() {
			_, err := client.Read(make([]byte, 1))
			read <- err
		}
		go one()
		synctest.Wait()
		begun := time.Now()
		client.SetReadDeadline(begun.Add(time.Minute))
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		client.SetDeadline(time.Time{})
		go one()
		synctest.Wait()
		server.Write([]byte("x"))
		if err := <-read; err != nil {
			t.Error(err)
		}
		client.SetReadDeadline(begun)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a deadline that was over: %v", err)
		}
	})
}

// TestAClosedPipeConnectsNobody, and lets go of who waits.
func TestAClosedPipeConnectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := meshtest.NewPipe()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.DialContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody accepts: %v", err)
		}
		waiting := make(chan error)
		go func() {
			_, err := p.Accept()
			waiting <- err
		}()
		synctest.Wait()
		p.Close()
		p.Close()
		if err := <-waiting; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := p.DialContext(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
