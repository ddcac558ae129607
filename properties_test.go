package proxyless

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestPropertiesSyntaxIsJavas(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []property
	}{
		{"nothing", "", nil},
		{"blank lines and comments", "\n  \t\n# a=b\n  ! c=d\n", nil},
		{"equals", "a=b", []property{{1, "a", "b"}}},
		{"colon", "a:b", []property{{1, "a", "b"}}},
		{"space", "a b c", []property{{1, "a", "b c"}}},
		{"tab and form feed", "a\t\fb", []property{{1, "a", "b"}}},
		{"separator within spaces", "  a  =  b", []property{{1, "a", "b"}}},
		{"only the first separator counts", "a = =b:c", []property{{1, "a", "=b:c"}}},
		{"a url as value", "dubbo.registry.address=xds://h:1?a=b", []property{{1, "dubbo.registry.address", "xds://h:1?a=b"}}},
		{"no value", "a\nb=\nc :", []property{{1, "a", ""}, {2, "b", ""}, {3, "c", ""}}},
		{"no key", "=b", []property{{1, "", "b"}}},
		{"escaped separators in the key", `a\ b\:c\=d=e`, []property{{1, "a b:c=d", "e"}}},
		{"escapes", `a=\t\n\r\f\\\q`, []property{{1, "a", "\t\n\r\f\\q"}}},
		{"unicode", `gr\u00fc\u00DFe=\u4f60\u597d`, []property{{1, "grüße", "你好"}}},
		{"surrogate pair", `a=\ud83d\ude00`, []property{{1, "a", "😀"}}},
		{"half a pair", `a=\ud83dx`, []property{{1, "a", "\uFFFDx"}}},
		{"half a pair before another", `a=\ud83d\u0041`, []property{{1, "a", "\uFFFDA"}}},
		{"continued", "a=b,\\\n   c,\\\r\n\td\nnext=1", []property{{1, "a", "b,c,d"}, {4, "next", "1"}}},
		{"continued in the key", "a\\\n  b=c", []property{{1, "ab", "c"}}},
		{"two backslashes do not continue", "a=b\\\\\nc=d", []property{{1, "a", `b\`}, {2, "c", "d"}}},
		{"three do", "a=b\\\\\\\nc", []property{{1, "a", `b\c`}}},
		{"continued into a comment sign", "a=\\\n#b", []property{{1, "a", "#b"}}},
		{"a comment is not continued", "#a\\\nb=c", []property{{2, "b", "c"}}},
		{"continued into nothing", "a=b\\", []property{{1, "a", "b"}}},
		{"carriage returns", "a=1\rb=2\r\nc=3", []property{{1, "a", "1"}, {2, "b", "2"}, {3, "c", "3"}}},
		{"twice", "a=1\na=2", []property{{1, "a", "1"}, {2, "a", "2"}}},
		{"byte order mark", "\uFEFFa=ü", []property{{1, "a", "ü"}}},
		{"latin 1", "a=\xfc", []property{{1, "a", "ü"}}},
		{"the value keeps its trailing space", "a=b ", []property{{1, "a", "b "}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseProperties([]byte(tt.text))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("parseProperties(%q) = %v, %v; want %v", tt.text, got, err, tt.want)
			}
		})
	}
}

func TestPropertiesWithABadEscapeNameTheLine(t *testing.T) {
	for _, text := range []string{`\u12`, `a=\uzzzz`, `a\u=b`, `a=\u+123`, `a=\ud83d\n\u00`} {
		entries, err := parseProperties([]byte("ok=1\n" + text))
		var syntax *syntaxError
		if !errors.As(err, &syntax) || syntax.line != 2 || entries != nil {
			t.Errorf("parseProperties(%q) = %v, %v; want an error of line 2 alone", text, entries, err)
		}
	}
}

// FuzzProperties holds that any text gives entries or an error, and that
// entries written out again are read as the same.
func FuzzProperties(f *testing.F) {
	files, err := filepath.Glob("testdata/properties/*.properties")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseProperties(data)
		if err != nil {
			if entries != nil {
				t.Fatal("error and entries")
			}
			return
		}
		again, err := parseProperties([]byte(writeProperties(entries)))
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%d entries, then %d, %v", len(entries), len(again), err)
		}
		for i := range entries {
			if again[i].key != entries[i].key || again[i].value != entries[i].value {
				t.Fatalf("%+q, then %+q", entries[i].key+"="+entries[i].value, again[i].key+"="+again[i].value)
			}
		}
		checkLoaded(t, data)
	})
}

// checkLoaded loads the same bytes as a dubbo.properties.
func checkLoaded(t *testing.T, data []byte) {
	env := fakeEnvironment(nil, map[string]string{"f": string(data)})
	config, err := loadConfig("f", env)
	if err != nil {
		if !reflect.DeepEqual(config, Config{}) {
			t.Fatal("error and a Config")
		}
		return
	}
	for _, notice := range config.Notices {
		if notice.Problem == "" || notice.Key == "" || notice.String() == "" {
			t.Fatalf("empty notice %+v", notice)
		}
	}
	_ = config.String()
	_ = config.Validate()
}

func writeProperties(entries []property) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(escapeAll(e.key) + "=" + escapeAll(e.value) + "\n")
	}
	return b.String()
}

func escapeAll(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < ' ' || strings.ContainsRune(" =:#!\\", r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
