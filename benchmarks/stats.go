package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// A contestant does one batch of work and says what one operation took.
type contestant func() sample

// sample is in nanoseconds. The processor time is that of the whole process, on
// all cores; it suffers less than the time from what else the machine does.
type sample struct{ time, cpu float64 }

// series is what one contestant took, round by round.
type series struct{ time, cpu []float64 }

// compete lets contestants work in turn for about as long as told, each time in
// another order, so that what else the machine does, and the garbage that others
// left behind, burdens all alike. The series are of equal length.
func compete(length time.Duration, contestants ...contestant) []series {
	const least = 15
	all := make([]series, len(contestants))
	for _, c := range contestants {
		c() // warms up
	}
	order := rand.New(rand.NewPCG(1, 1))
	start := time.Now()
	for round := 0; round < least || time.Since(start) < length; round++ {
		for _, at := range order.Perm(len(contestants)) {
			s := contestants[at]()
			all[at].time, all[at].cpu = append(all[at].time, s.time), append(all[at].cpu, s.cpu)
		}
	}
	return all
}

// timed makes a contestant of something that is done a number of times.
func timed(times int, work func(times int)) contestant {
	return func() sample {
		used, start := processorTime(), time.Now()
		work(times)
		took := time.Since(start)
		return sample{float64(took) / float64(times), float64(processorTime()-used) / float64(times)}
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// estimate is a median with its 95 % confidence interval. Both hold whatever
// the distribution is: the interval's ends are order statistics.
type estimate struct {
	median, low, high float64
	n                 int
}

func estimateOf(values []float64) estimate {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	if n == 0 {
		return estimate{math.NaN(), math.NaN(), math.NaN(), 0}
	}
	half := 0.98 * math.Sqrt(float64(n)) // 1.96 standard deviations of a binomial with p = ½
	low := max(0, int(math.Floor(float64(n-1)/2-half)))
	high := min(n-1, int(math.Ceil(float64(n-1)/2+half)))
	return estimate{(v[(n-1)/2] + v[n/2]) / 2, v[low], v[high], n}
}

// ratio is the quotient of what was measured in the same round.
func ratio(a, b []float64) estimate {
	return pairwise(a, b, func(x, y float64) float64 { return x / y })
}

func difference(a, b []float64) estimate {
	return pairwise(a, b, func(x, y float64) float64 { return x - y })
}

func pairwise(a, b []float64, f func(x, y float64) float64) estimate {
	values := make([]float64, len(a))
	for i := range a {
		values[i] = f(a[i], b[i])
	}
	return estimateOf(values)
}

func (e estimate) String() string {
	return fmt.Sprintf("%s (%s to %s)", significant(e.median), significant(e.low), significant(e.high))
}

// significant prints three digits that count.
func significant(x float64) string {
	switch a := math.Abs(x); {
	case a >= 100:
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	case a >= 1:
		return fmt.Sprintf("%.2f", x)
	default:
		return fmt.Sprintf("%.3f", x)
	}
}

// nanoseconds prints the median of some times.
func nanoseconds(times []float64) string {
	ns := estimateOf(times).median
	switch {
	case ns >= 1e6:
		return significant(ns/1e6) + " ms"
	case ns >= 1e3:
		return significant(ns/1e3) + " µs"
	}
	return significant(ns) + " ns"
}
