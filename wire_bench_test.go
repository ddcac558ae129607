package proxyless

import (
	"strconv"
	"testing"
)

func BenchmarkDecodeAssignment(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			raw := rawAssignment(n)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeResource(kindEndpoints, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
