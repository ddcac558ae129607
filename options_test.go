package proxyless

import (
	"reflect"
	"testing"
	"time"
)

func TestReferOptions(t *testing.T) {
	tests := []struct {
		name string
		opts []ReferOption
		want referSettings
	}{
		{"none", nil, referSettings{}},
		{"all", []ReferOption{Version(" 1.0.0 "), Group("g"), ProvidedBy("a"), Port(50052), Timeout(3 * time.Second)},
			referSettings{version: "1.0.0", group: "g", providedBy: []string{"a"}, port: 50052, timeout: 3 * time.Second, hasTimeout: true}},
		{"names as Dubbo writes them", []ReferOption{ProvidedBy("a, b.ns,,", "c"), ProvidedBy("d")},
			referSettings{providedBy: []string{"a", "b.ns", "c", "d"}}},
		{"no deadline", []ReferOption{Timeout(-1)}, referSettings{hasTimeout: true}},
		{"the last one counts", []ReferOption{Version("1"), Version("")}, referSettings{}},
	}
	for _, tt := range tests {
		var got referSettings
		for _, o := range tt.opts {
			o.applyRefer(&got)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestExportOptions(t *testing.T) {
	var got exportSettings
	for _, o := range []ExportOption{Version("1.0.0"), Group(" g ")} {
		o.applyExport(&got)
	}
	if want := (exportSettings{version: "1.0.0", group: "g"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
