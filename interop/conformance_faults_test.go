package interop

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faultRows: faults that the mesh injects.
var faultRows = []row{
	{name: "fault-delay", about: "delay of all calls", field: "http.fault.delay.fixedDelay",
		yaml:  faulty("delay: {percentage: {value: 100}, fixedDelay: 300ms}"),
		check: delayed(3, 3, 3)},
	{name: "fault-delay-part", about: "delay of a part of the calls", field: "http.fault.delay.percentage",
		yaml:  faulty("delay: {percentage: {value: 20}, fixedDelay: 300ms}"),
		check: delayed(80, 3, 36)}, // 16 on average, deviation 3.6
	{name: "fault-abort-grpc", about: "abort of all calls with a gRPC status", field: "http.fault.abort.grpcStatus",
		yaml:  faulty("abort: {percentage: {value: 100}, grpcStatus: RESOURCE_EXHAUSTED}"),
		check: aborted(20, 20, 20, codes.ResourceExhausted)},
	{name: "fault-abort-http", about: "abort of all calls with an HTTP status", field: "http.fault.abort.httpStatus",
		yaml:  faulty("abort: {percentage: {value: 100}, httpStatus: 403}"),
		check: aborted(20, 20, 20, codes.PermissionDenied)},
	{name: "fault-abort-part", about: "abort of a part of the calls", field: "http.fault.abort.percentage",
		yaml:  faulty("abort: {percentage: {value: 25}, grpcStatus: NOT_FOUND}"),
		check: aborted(400, 57, 143, codes.NotFound)}, // deviation 9
	{name: "fault-abort-never", about: "abort of no call", field: "http.fault.abort.percentage: 0",
		yaml:  faulty("abort: {percentage: {value: 0}, grpcStatus: NOT_FOUND}"),
		check: aborted(100, 0, 0, codes.NotFound)},
}

func faulty(fault string) string {
	return virtual("- fault: {" + fault + "}\n  route: [{destination: {host: HOST}}]")
}

// delayed makes n calls and counts those that took 300 ms.
func delayed(n, least, most int) func(*scene) error {
	return func(s *scene) error {
		if _, err := s.call(spec{}); err != nil { // connect
			return err
		}
		late := 0
		for range n {
			got, err := s.call(spec{})
			if err != nil {
				return err
			}
			if got.took > 280*time.Millisecond {
				late++
			}
		}
		if late < least || late > most {
			return unseenf("%d of %d calls were late, want %d to %d", late, n, least, most)
		}
		return nil
	}
}

// aborted makes n calls and counts those that ended with the code.
func aborted(n, least, most int, code codes.Code) func(*scene) error {
	return func(s *scene) error {
		count := 0
		for range n {
			_, err := s.call(spec{})
			if got := status.Code(err); got == code {
				count++
			} else if err != nil {
				return err
			}
		}
		if count < least || count > most {
			return unseenf("%d of %d calls ended with %v, want %d to %d", count, n, code, least, most)
		}
		return nil
	}
}

func init() { inPart("VirtualService: faults", faultRows) }
