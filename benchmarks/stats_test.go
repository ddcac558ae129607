package main

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"
)

func TestIntervalHoldsTheMedian(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const trials = 1000
	for _, n := range []int{15, 40, 200} {
		held := 0
		for range trials {
			values := make([]float64, n)
			for i := range values {
				values[i] = random.ExpFloat64() // skewed, as times are; its median is ln 2
			}
			e := estimateOf(values)
			if e.low > e.median || e.median > e.high || e.n != n {
				t.Fatalf("%d values: %+v", n, e)
			}
			if e.low <= 0.693147 && 0.693147 <= e.high {
				held++
			}
		}
		if held < trials*94/100 {
			t.Errorf("%d values: %d of %d intervals hold the median", n, held, trials)
		}
	}
}

func TestContestantsTakeTurns(t *testing.T) {
	var turns []int
	contestant := func(id int) contestant {
		return func() sample { turns = append(turns, id); return sample{time: float64(id)} }
	}
	s := compete(time.Nanosecond, contestant(2), contestant(6))
	if len(s[0].time) != len(s[1].time) || len(s[0].time) < 15 {
		t.Fatalf("%d and %d rounds", len(s[0].time), len(s[1].time))
	}
	if e := ratio(s[1].time, s[0].time); e.low != 3 || e.high != 3 {
		t.Errorf("ratio %v", e)
	}
	if e := difference(s[1].time, s[0].time); e.median != 4 {
		t.Errorf("difference %v", e)
	}
	first := map[int]int{}
	for i := 2; i < len(turns); i += 2 { // after the warm-up
		first[turns[i]]++
	}
	if first[2] == 0 || first[6] == 0 {
		t.Fatalf("the order never changes: %v", turns)
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		e       estimate
		atLeast bool
		want    string
	}{
		{estimate{1, 0.9, 1.1, 9}, false, "≤ 2: met"},
		{estimate{1.9, 1.5, 2.1, 9}, false, "≤ 2: met by the median"},
		{estimate{2.1, 1.9, 2.2, 9}, false, "≤ 2: missed by the median"},
		{estimate{3, 2.9, 3.1, 9}, false, "≤ 2: missed"},
		{estimate{3, 2.9, 3.1, 9}, true, "≥ 2: met"},
		{estimate{1, 0.9, 1.1, 9}, true, "≥ 2: missed"},
	} {
		w := row{estimate: c.e, budget: 2, atLeast: c.atLeast}
		if got := w.verdict(); got != c.want {
			t.Errorf("%v: %q, want %q", c.e, got, c.want)
		}
	}
}

// TestOverlayFits compiles what the overlay adds to package proxyless, which
// nothing else in go test does.
func TestOverlayFits(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "vet", "-overlay", "overlay.json", ".").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTheWholeReport runs the program, so coarsely that its figures mean nothing.
func TestTheWholeReport(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", ".", "-quick", "-share", "20ms").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, section := range []string{"pick", "route", "decode", "enter a mesh", "Invoke above", "call with", "mutual TLS handshake", "authorization by",
		"unary echo, client and server", "push to the first call", "heap of", "stripped binary", "memory at the first answer"} {
		if !bytes.Contains(out, []byte("\n| "+section)) {
			t.Errorf("there is no row %q in\n%s", section, out)
		}
	}
}
