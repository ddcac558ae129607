// Package lab runs a real mesh control plane for tests: etcd, kube-apiserver,
// kube-controller-manager and istiod as processes, and the pods of Deployments
// as processes in network namespaces (package kubelet).
//
// Everything, the tests included, lives in a network, mount and process
// namespace of its own that [Suite.Main] makes. Fixed ports and pod addresses
// therefore clash with nothing on the machine, and when the test process ends,
// however it ends, the kernel removes what it started.
//
// It needs Linux, root, the ip command and etcd (which is installed from the
// distribution where apt-get can). The Kubernetes and Istio programs are built
// once from the modules pinned in tools/ and kept in the user's cache directory.
package lab
