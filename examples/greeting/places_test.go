package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestPlacesAreThoseTheSystemHas(t *testing.T) {
	for _, test := range []struct {
		name  string
		taken []string // addresses, or hosts that are missing as a whole
		want  string
		notes []string // what each says, among other things
	}{
		{"all free", nil,
			"127.0.0.2:50052/22222 127.0.0.3:50052/22222 127.0.0.4/22222", nil},
		{"only one host", []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"},
			"127.0.0.1:50052/22222 127.0.0.1:50053/22223 127.0.0.1/22224", []string{"only 127.0.0.1"}},
		{"one host missing", []string{"127.0.0.4"},
			"127.0.0.1:50052/22222 127.0.0.1:50053/22223 127.0.0.1/22224", []string{"only 127.0.0.1"}},
		{"a taken port", []string{"127.0.0.3:50052"},
			"127.0.0.2:50052/22222 127.0.0.3:40003/22222 127.0.0.4/22222", []string{"127.0.0.3:50052 cannot be had"}},
		{"one host and taken ports", []string{"127.0.0.2", "127.0.0.1:50053", "127.0.0.1:22224"},
			"127.0.0.1:50052/22222 127.0.0.1:40000/22223 127.0.0.1/40001", []string{"only 127.0.0.1", "50053", "22224"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fakeSystem{taken: test.taken}
			places, notes, err := choosePlaces(f.listen)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range places {
				got = append(got, fmt.Sprintf("%s/%d", p, p.qos))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), test.want)
			}
			if len(notes) != len(test.notes) {
				t.Fatalf("notes %q, want %d", notes, len(test.notes))
			}
			for i, part := range test.notes {
				if !strings.Contains(notes[i], part) {
					t.Errorf("note %q does not say %q", notes[i], part)
				}
			}
			if f.open != 0 {
				t.Errorf("%d listeners are left open", f.open)
			}
		})
	}
}

// A fakeSystem lends out ports; free ones are counted up from 40000.
type fakeSystem struct {
	taken []string
	next  int
	open  int
}

func (f *fakeSystem) listen(_, address string) (net.Listener, error) {
	host, port, _ := net.SplitHostPort(address)
	if slices.Contains(f.taken, host) || slices.Contains(f.taken, address) {
		return nil, fmt.Errorf("listen %s: it is taken", address)
	}
	at, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	if at.Port == 0 {
		at.Port = 40000 + f.next
		f.next++
	}
	f.taken = append(f.taken, at.String())
	f.open++
	return &fakeListener{at: at, system: f}, nil
}

type fakeListener struct {
	net.Listener
	at     *net.TCPAddr
	system *fakeSystem
}

func (l *fakeListener) Addr() net.Addr { return l.at }
func (l *fakeListener) Close() error   { l.system.open--; return nil }
