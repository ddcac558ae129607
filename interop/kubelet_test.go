package interop

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
)

// inspectManifest runs the lab's own program with everything that the greeting's
// manifests ask of a kubelet.
const inspectManifest = `
apiVersion: v1
kind: Namespace
metadata:
  name: inspected
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  namespace: inspected
data:
  dubbo.properties: |
    dubbo.application.name=inspected
---
apiVersion: v1
kind: Service
metadata:
  name: inspect
  namespace: inspected
spec:
  clusterIP: None
  selector:
    app: inspect
  ports:
  - name: http
    port: 8080
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: inspect
  namespace: inspected
spec:
  replicas: 1
  selector:
    matchLabels:
      app: inspect
  template:
    metadata:
      labels:
        app: inspect
      annotations:
        note: a "quoted" word
    spec:
      terminationGracePeriodSeconds: 5
      securityContext:
        runAsUser: 65532
        runAsGroup: 65532
      containers:
      - name: main
        image: example.org/lab/inspect:1
        args: [first, $(POD_NAME)]
        env:
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        - name: SUMMARY
          value: $(POD_NAME)@$(POD_IP) $$(POD_IP) $(UNKNOWN)
        - name: SETTINGS
          valueFrom:
            configMapKeyRef:
              name: settings
              key: dubbo.properties
        - name: STOP_DELAY
          value: 300ms
        ports:
        - name: http
          containerPort: 8080
        startupProbe:
          httpGet: {path: /live, port: http}
          periodSeconds: 1
        readinessProbe:
          httpGet: {path: /ready, port: 8080}
          periodSeconds: 1
          failureThreshold: 1
        livenessProbe:
          httpGet: {path: /live, port: http}
          periodSeconds: 1
        volumeMounts:
        - name: istio-token
          mountPath: /var/run/secrets/tokens
        - name: istio-ca
          mountPath: /var/run/secrets/istio
        - name: podinfo
          mountPath: /etc/istio/pod
        - name: settings
          mountPath: /config
      volumes:
      - name: istio-token
        projected:
          sources:
          - serviceAccountToken:
              path: istio-token
              audience: istio-ca
              expirationSeconds: 3600
      - name: istio-ca
        configMap:
          name: istio-ca-root-cert
      - name: podinfo
        downwardAPI:
          items:
          - path: labels
            fieldRef:
              fieldPath: metadata.labels
          - path: annotations
            fieldRef:
              fieldPath: metadata.annotations
      - name: settings
        configMap:
          name: settings
`

// inspected applies the manifest once more, waits for n pods, and removes it
// all when the test ends.
func inspected(t *testing.T, n int) (*lab.Lab, []lab.Pod) {
	t.Helper()
	l := suite.Lab(t)
	apply(t, l, inspectManifest)
	ctx := within(t, 20*time.Second)
	if err := l.Scale(ctx, "inspected", "inspect", n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := l.Scale(ctx, "inspected", "inspect", 0); err != nil {
			t.Error(err)
		}
		if _, err := l.WaitPods(ctx, "inspected", "app=inspect", 0); err != nil {
			t.Error(err)
		}
	})
	pods, err := l.WaitPods(ctx, "inspected", "app=inspect", n)
	if err != nil {
		t.Fatal(err)
	}
	return l, pods
}

// tell asks the program in the pod.
func tell(t *testing.T, p lab.Pod, path string, query ...string) string {
	t.Helper()
	values := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	request, err := http.NewRequestWithContext(within(t, 5*time.Second), http.MethodGet, "http://"+p.IP+":8080"+path+"?"+values.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestPodSeesNothingElse lists the root directory of a pod: the program, two
// files for names, and the volumes.
func TestPodSeesNothingElse(t *testing.T) {
	_, pods := inspected(t, 1)
	var seen []string
	for file := range strings.Lines(tell(t, pods[0], "/tree")) {
		if file = strings.TrimSpace(file); !strings.Contains(file, "/..") {
			seen = append(seen, file)
		}
	}
	want := []string{
		"/config/dubbo.properties",
		"/etc/hosts",
		"/etc/istio/pod/annotations",
		"/etc/istio/pod/labels",
		"/etc/resolv.conf",
		"/inspect",
		"/var/run/secrets/istio/root-cert.pem",
		"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
		"/var/run/secrets/kubernetes.io/serviceaccount/namespace",
		"/var/run/secrets/kubernetes.io/serviceaccount/token",
		"/var/run/secrets/tokens/istio-token",
	}
	slices.Sort(seen)
	if !slices.Equal(seen, want) {
		t.Errorf("the pod sees\n%s\nwant\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
	}
}

// TestPodSurroundings holds the imitation to what a kubelet gives a container.
func TestPodSurroundings(t *testing.T) {
	_, pods := inspected(t, 1)
	p := pods[0]
	cases := []struct{ name, got, want string }{
		{"first process, user, host name, arguments", tell(t, p, "/process"), fmt.Sprintf("1 65532 %s [/inspect first %s]\n", p.Name, p.Name)},
		{"environment with references", tell(t, p, "/env", "name", "SUMMARY"), p.Name + "@" + p.IP + " $(POD_IP) $(UNKNOWN)"},
		{"environment from a ConfigMap", tell(t, p, "/env", "name", "SETTINGS"), "dubbo.application.name=inspected\n"},
		{"file from a ConfigMap", tell(t, p, "/file", "path", "/config/dubbo.properties"), "dubbo.application.name=inspected\n"},
		{"annotations", tell(t, p, "/file", "path", "/etc/istio/pod/annotations"), `note="a \"quoted\" word"`},
		{"namespace", tell(t, p, "/file", "path", "/var/run/secrets/kubernetes.io/serviceaccount/namespace"), "inspected"},
	}
	for _, c := range cases {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, c.got, c.want)
		}
	}
	if labels := tell(t, p, "/file", "path", "/etc/istio/pod/labels"); !strings.Contains(labels, `app="inspect"`) {
		t.Errorf("labels: %q", labels)
	}
}

// TestPodTokenOpensADS takes the token and the root out of the pod's volumes.
func TestPodTokenOpensADS(t *testing.T) {
	l, pods := inspected(t, 1)
	c := credential{
		roots: []byte(tell(t, pods[0], "/file", "path", "/var/run/secrets/istio/root-cert.pem")),
		token: tell(t, pods[0], "/file", "path", "/var/run/secrets/tokens/istio-token"),
	}
	s := openADS(t, l.Istiod.Secure(), c, leanNode(pods[0].IP, pods[0].Name, "inspected"))
	if a := s.ask(t, listenerType, "inspect:8080"); a == nil || a.err != nil || len(a.Resources) != 1 {
		t.Errorf("istiod's answer: %+v", a)
	}
}

// TestReadiness turns the readiness probe's answer and sees the pod follow.
func TestReadiness(t *testing.T) {
	l, pods := inspected(t, 2)
	for _, ready := range []bool{false, true} {
		tell(t, pods[0], "/set-ready", "to", fmt.Sprint(ready))
		err := lab.WaitFor(within(t, 5*time.Second), "readiness", func(ctx context.Context) error {
			now, err := l.Pods(ctx, "inspected", "app=inspect")
			if err == nil && (now[0].Ready != ready || !now[1].Ready) {
				err = fmt.Errorf("there are %+v", now)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestCrash lets the program end; it is started again.
func TestCrash(t *testing.T) {
	l, pods := inspected(t, 1)
	tell(t, pods[0], "/exit", "code", "3")
	err := lab.WaitFor(within(t, 10*time.Second), "the restart", func(ctx context.Context) error {
		now, err := l.Pods(ctx, "inspected", "app=inspect")
		if err == nil && (now[0].Restarts != 1 || !now[0].Ready) {
			err = fmt.Errorf("there are %+v", now)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTermination scales to nothing: SIGTERM is seen and the end waited for.
func TestTermination(t *testing.T) {
	l, pods := inspected(t, 2)
	ctx := within(t, 10*time.Second)
	if err := l.Scale(ctx, "inspected", "inspect", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := l.WaitPods(ctx, "inspected", "app=inspect", 0); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		out, err := os.ReadFile(p.Log)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(out), "ended in good order") {
			t.Errorf("%s wrote %q", p.Name, out)
		}
	}
}
