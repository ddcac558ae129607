package proxyless

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// istiodAnswers are the DiscoveryResponses of a real istiod in
// testdata/istiod, whose README says how they were made.
func istiodAnswers(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "istiod", "*.binpb"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	answers := map[string][]byte{}
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(file), "full-") {
			continue // of the full view
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		answers[strings.TrimSuffix(filepath.Base(file), ".binpb")] = raw
	}
	return answers
}

// describeAnswer writes down what is kept of a response and what is ignored.
func describeAnswer(t *testing.T, raw []byte) string {
	t.Helper()
	response, err := decodeADSResponse(raw)
	if err != nil {
		t.Fatal(err)
	}
	k, ok := kindOf(response.typeURL)
	if !ok || response.nonce == "" || response.version == "" {
		t.Fatalf("type %q, nonce %q, version %q", response.typeURL, response.nonce, response.version)
	}
	var b strings.Builder
	for _, r := range response.resources {
		got, err := decodeResource(k, r.value)
		if err != nil || r.typeURL != response.typeURL {
			t.Fatal(r.typeURL, err)
		}
		fmt.Fprintf(&b, "%v %s\n", k, got.name)
		switch value := got.value.(type) {
		case *routeConfig:
			b.WriteString(value.describe())
		case *assignment:
			fmt.Fprintf(&b, "%d unusable\n%s", len(value.others), value.describe())
		default:
			fmt.Fprintf(&b, "%s\n", describeValue(reflect.ValueOf(value)))
		}
		for _, field := range got.ignored {
			fmt.Fprintf(&b, "ignored %s\n", field)
		}
	}
	return b.String()
}

// describeValue writes a value down without what is zero in it.
func describeValue(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		if re, ok := reflect.TypeAssert[*regexp.Regexp](readable(v)); ok {
			return "/" + re.String() + "/"
		}
		return describeValue(v.Elem())
	case reflect.Struct:
		if s, ok := reflect.TypeAssert[fmt.Stringer](readable(v)); ok {
			return s.String()
		}
		var fields []string
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				fields = append(fields, v.Type().Field(i).Name+":"+describeValue(f))
			}
		}
		return "{" + strings.Join(fields, " ") + "}"
	case reflect.Slice:
		var elements []string
		for i := range v.Len() {
			elements = append(elements, describeValue(v.Index(i)))
		}
		return "[" + strings.Join(elements, " ") + "]"
	case reflect.String:
		return strconv.Quote(v.String())
	case reflect.Interface:
		if der, err := x509.MarshalPKIXPublicKey(readable(v).Interface()); err == nil {
			return fmt.Sprintf("key-%x", sha256.Sum256(der))
		}
	}
	return fmt.Sprint(readable(v))
}

// readable makes a value of an unexported field, which is addressable, one
// that can be looked at.
func readable(v reflect.Value) reflect.Value {
	if v.CanInterface() {
		return v
	}
	return reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
}

// TestIstiodAnswers holds what is kept of a real istiod's answers against
// testdata/wire; -update writes it anew.
func TestIstiodAnswers(t *testing.T) {
	for name, raw := range istiodAnswers(t) {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", "wire", name+".golden")
			got := describeAnswer(t, raw)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
