package proxyless

import "sync/atomic"

// Keys of log records. One word per thing, the same as in errors and QoS.
const (
	keyListener     = "listener"
	keyEndpoint     = "endpoint"
	keyControlPlane = "control_plane"
	keyError        = "error"
	keyIdentity     = "identity"
)

// counters are the process-wide numbers of one Mesh. Everybody may add; Stats
// reads.
type counters struct {
	references     atomic.Uint64 // Invokers made by Refer
	connects       atomic.Uint64 // ADS streams opened
	responses      atomic.Uint64 // DiscoveryResponses received
	unchanged      atomic.Uint64 // resources skipped because their bytes did not change
	updated        atomic.Uint64 // resources decoded and accepted
	rejected       atomic.Uint64 // resources refused (NACK)
	ignored        atomic.Uint64 // field paths of policy that is not applied, as they are logged
	published      atomic.Uint64 // plans published
	dials          atomic.Uint64 // connections begun to endpoints
	repicks        atomic.Uint64 // attempts that found their endpoint gone before anything was sent
	calls          atomic.Uint64 // calls that could not use the first pick: they waited or failed
	ejections      atomic.Uint64 // endpoints ejected by outlier detection
	overloads      atomic.Uint64 // calls refused because a cluster's limit was reached
	dropped        atomic.Uint64 // calls refused because the mesh sheds load
	retries        atomic.Uint64 // repeats of calls that the mesh asked for
	faults         atomic.Uint64 // calls that a fault was injected into
	mirrored       atomic.Uint64 // copies of calls sent to mirrors
	mirrorsDropped atomic.Uint64 // copies not sent
	swallowed      atomic.Uint64 // failures that callers were not told of (failsafe, failback)
	denied         atomic.Uint64 // calls that the mesh's rules refused
	auditsLost     atomic.Uint64 // audit records that came too fast
	certificates   atomic.Uint64 // certificates of this workload that came into force
	certFailures   atomic.Uint64 // attempts to get one that failed
	encrypted      atomic.Uint64 // connections that servers took in over TLS
	plain          atomic.Uint64 // and in plain text
	turnedAway     atomic.Uint64 // and those they did not take in
	timedOut       atomic.Uint64 // of those: pending for too long
	crowdedOut     atomic.Uint64 // of those: pending for longest when there were too many
	retired        atomic.Uint64 // connections asked to leave since the mesh does not admit them any longer
	lastAnswer     atomic.Int64  // unix nanoseconds of the last DiscoveryResponse; 0 is never

	faultsActive atomic.Int64 // faults being injected now
}

// Stats are counters since Join. They only grow, but for AgeSeconds.
type Stats struct {
	ControlPlaneConnects uint64  // ADS streams opened
	Responses            uint64  // DiscoveryResponses received
	ResourcesUnchanged   uint64  // resources skipped because their bytes did not change
	ResourcesUpdated     uint64  // resources decoded and accepted
	ResourcesRejected    uint64  // resources refused (NACK)
	PolicyIgnored        uint64  // fields of resources with policy that is not applied, each counted when it is first seen
	PlansPublished       uint64  // plans handed to invokers
	Dials                uint64  // connections begun to endpoints
	Repicks              uint64  // attempts that lost their endpoint before anything was sent, and chose another
	Waits                uint64  // calls that found no ready endpoint at once
	Ejections            uint64  // endpoints ejected by outlier detection
	Overloads            uint64  // calls refused because a limit of their cluster was reached
	Dropped              uint64  // calls refused because the mesh sheds load (drop_overloads)
	Retries              uint64  // attempts that repeated one which failed, as the mesh asks
	Faults               uint64  // calls that the mesh injected a fault into
	Mirrored             uint64  // copies of calls sent to mirrors
	MirrorsDropped       uint64  // copies that were not sent: too many at a time, or no endpoint
	Swallowed            uint64  // failed calls that their callers were not told of (the clusters failsafe and failback)
	Denied               uint64  // calls to this process that the mesh's rules refused
	AuditsLost           uint64  // audit records that came faster than they were taken
	Certificates         uint64  // certificates of this workload that came into force: the first, and each renewal
	CertificateFailures  uint64  // attempts to get or renew one that failed
	ConnectionsEncrypted uint64  // connections that servers took in over TLS
	ConnectionsPlain     uint64  // and in plain text; see Mesh.PlainTextPeers
	ConnectionsRefused   uint64  // and those turned away: by the mesh's policy, for a failed handshake, or for one of the next two reasons
	HandshakesSlow       uint64  // they took longer than Config.HandshakeTimeout
	HandshakesCrowdedOut uint64  // they were under way for longest when there were Config.PendingConnections
	ConnectionsRetired   uint64  // connections asked to leave (GOAWAY), since a new policy of the mesh does not admit them
	AgeSeconds           float64 // time since the control plane last sent something; -1 is never
}
