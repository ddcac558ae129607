package interop

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
)

// These tests run the greeting's consumer as a pod that is set up otherwise
// than its manifests have it.

// consumerPod is a Deployment of one consumer with the arguments, mounts and
// volumes, in YAML, and with the variables that tell who it is.
func consumerPod(namespace, args, mounts, volumes string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: consumer, namespace: %s}
spec:
  replicas: 1
  selector: {matchLabels: {demo: consumer}}
  template:
    metadata: {labels: {demo: consumer}}
    spec:
      containers:
      - name: consumer
        image: proxyless/greeting-consumer:latest
        args: [%s]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: INSTANCE_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        readinessProbe: {httpGet: {path: /ready, port: 22222}, periodSeconds: 1}
        volumeMounts: [%s]
      volumes: [%s]
`, namespace, args, mounts, volumes)
}

// deployConsumer applies a consumerPod until the test ends and returns its pod.
func deployConsumer(t *testing.T, l *lab.Lab, namespace, manifest string) lab.Pod {
	t.Helper()
	apply(t, l, manifest)
	t.Cleanup(func() {
		removeManifest(t, l, manifest)
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		if _, err := l.WaitPods(ctx, namespace, "demo=consumer", 0); err != nil {
			t.Error(err)
		}
	})
	var pods []lab.Pod
	must(t, lab.WaitFor(within(t, 30*time.Second), "the consumer's pod", func(ctx context.Context) (err error) {
		if pods, err = l.Pods(ctx, namespace, "demo=consumer"); err == nil && (len(pods) != 1 || pods[0].IP == "") {
			err = fmt.Errorf("there are %+v", pods)
		}
		return err
	}))
	return pods[0]
}

// TestPlainTextPod gives a consumer a dubbo.properties that speaks plain text,
// and nothing else: no token, no certificate.
func TestPlainTextPod(t *testing.T) {
	l := suite.Lab(t)
	p := startProvider(t, l, "plain", "provider", map[string]string{"demo": "provider"})
	withManifest(t, l, strings.Replace(service("plain", providerName, "provider", grpcPort), "{app:", "{demo:", 1)+`---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: plain}
data:
  dubbo.properties: |
    dubbo.application.name=dubbo-samples-xds-consumer
    dubbo.registry.address=xds://istiod.istio-system.svc:15010
    dubbo.registry.secure=plaintext
    dubbo.application.qosAcceptForeignIp=true
`)
	consumer := deployConsumer(t, l, "plain", consumerPod("plain", "-config, /config/dubbo.properties",
		"{name: settings, mountPath: /config}", "{name: settings, configMap: {name: settings}}"))
	expectHosts(t, []lab.Pod{consumer}, lab.Pod{IP: p.IP.String()})
	_, err := l.WaitPods(within(t, 30*time.Second), "plain", "demo=consumer", 1)
	must(t, err)
}

// TestFirstPartyToken follows Dubbo's guide where the mesh asks for today's
// tokens: the pod has its service account's own token only. It is alive, not
// ready, and says which volume it lacks.
func TestFirstPartyToken(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), "first-party"))
	consumer := deployConsumer(t, l, "first-party", consumerPod("first-party", "",
		"{name: root, mountPath: /var/run/secrets/istio}", "{name: root, configMap: {name: istio-ca-root-cert}}"))
	must(t, lab.WaitFor(within(t, 30*time.Second), "the consumer to say what it lacks", func(context.Context) error {
		written, err := os.ReadFile(consumer.Log)
		if err != nil {
			return err // the pod is being started
		}
		text := string(written)
		for _, part := range []string{"https://kubernetes.default.svc", "istiod asks for the audience istio-ca", "mountPath: /var/run/secrets/tokens"} {
			if !strings.Contains(text, part) {
				return fmt.Errorf("%q is not in what it wrote: %s", part, text)
			}
		}
		return nil
	}))
	for path, want := range map[string]int{"/live": http.StatusOK, "/startup": http.StatusOK, "/ready": http.StatusServiceUnavailable} {
		if code, text := get(t, http.DefaultClient, "http://"+consumer.IP+":22222"+path); code != want {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	pods, err := l.Pods(soon(t), "first-party", "demo=consumer")
	must(t, err)
	if len(pods) != 1 || pods[0].Ready || pods[0].Restarts > 0 {
		t.Errorf("the pod should wait, not ready and not restarted: %+v", pods)
	}
}
