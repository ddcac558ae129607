package proxyless

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"testing"
	"time"
	"unsafe"
)

// difference is the path of the first field in which two kept values differ,
// with both, or empty. It goes over all fields there are, so that one that is
// added to a kept type has to be added to the reference as well. Reasons
// (failure and never) are compared by whether there is one, and by their text
// only where that is demandsTLS.
func difference(path string, got, want reflect.Value) string {
	differs := func(got, want any) string { return fmt.Sprintf("%s: kept %v, the reference says %v", path, got, want) }
	switch {
	case got.Kind() == reflect.Pointer && (got.IsNil() || want.IsNil()):
		if got.IsNil() != want.IsNil() {
			return differs(!got.IsNil(), !want.IsNil())
		}
	case got.Type() == reflect.TypeFor[*regexp.Regexp]():
		return sameRegex(path, open(got).Interface().(*regexp.Regexp), open(want).Interface().(*regexp.Regexp))
	case got.Type() == reflect.TypeFor[netip.AddrPort]():
		if g, w := open(got).Interface(), open(want).Interface(); g != w {
			return differs(g, w)
		}
	case got.Kind() == reflect.Pointer:
		return difference(path, got.Elem(), want.Elem())
	case got.Kind() == reflect.Struct:
		for i := range got.NumField() {
			name := got.Type().Field(i).Name
			if d := differenceInField(path+"."+name, name, got.Field(i), want.Field(i)); d != "" {
				return d
			}
		}
	case got.Kind() == reflect.Slice:
		if got.Len() != want.Len() {
			return differs(got.Len(), want.Len())
		}
		for i := range got.Len() {
			if d := difference(path+"["+strconv.Itoa(i)+"]", got.Index(i), want.Index(i)); d != "" {
				return d
			}
		}
	default:
		if !got.Equal(want) {
			return differs(got, want)
		}
	}
	return ""
}

func differenceInField(path, name string, got, want reflect.Value) string {
	if name != "failure" && name != "never" {
		return difference(path, got, want)
	}
	g, w := got.String(), want.String()
	if (g == "") != (w == "") || (g == demandsTLS) != (w == demandsTLS) {
		return fmt.Sprintf("%s: kept %q, the reference says %q", path, g, w)
	}
	return ""
}

// open makes a field readable and settable that is not exported.
func open(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

// sameRegex holds a pattern that is anchored at both ends against one without
// anchors whose longest match has to be the whole text.
func sameRegex(path string, got, want *regexp.Regexp) string {
	for _, text := range append(regexTexts, want.String()) {
		span := want.FindStringIndex(text)
		if whole := span != nil && span[0] == 0 && span[1] == len(text); got.MatchString(text) != whole {
			return fmt.Sprintf("%s: %q matches %q: kept %v, the reference says %v", path, want, text, !whole, whole)
		}
	}
	return ""
}

var regexTexts = []string{"", "a", "ab", "b", "aab", "v1", "v12", "/p.S/M", "/p.S/Method", "xv1", "v1x", "V1", "a|b", "a\nb", "é"}

// TestEveryKeptFieldIsCompared changes each field of values that have them all,
// and wants the change to be seen.
func TestEveryKeptFieldIsCompared(t *testing.T) {
	rich := func() []any {
		re := regexp.MustCompile("^(?:v[0-9]+)$")
		routes := &routeConfig{"r", []virtualHost{{"v", []string{"d"}, []route{{
			name:     "n",
			match:    routeMatch{pathRegex, true, "v[0-9]+", re, []headerMatch{{"h", headerRegex, "v[0-9]+", re, 1, 2, true, true, true}}, 7, true, "why"},
			clusters: []weightedCluster{{"c", 3}}, total: 3, failure: "why", hasMaxDuration: true, maxDuration: time.Second,
		}}}}}
		return []any{
			routes,
			&listener{"l", "r", routes, time.Second, []filterChain{{"c", true, []string{"f"}}}},
			&cluster{"c", "e", lbOther, time.Second, "why"},
			&assignment{"c", []locality{{"r", "z", "s", 1, 2, 0, 1}}, []endpoint{{netip.MustParseAddrPort("10.0.0.1:80"), 1, healthHealthy}}, 2},
		}
	}
	changed := 0
	for i, want := range rich() {
		for leaf := 0; ; leaf++ {
			got, left := rich()[i], leaf
			path := change(reflect.ValueOf(got), "", &left)
			if path == "" {
				break
			}
			if difference("", reflect.ValueOf(got), reflect.ValueOf(want)) == "" {
				t.Errorf("%T: a change of %s is not seen", want, path)
			}
			changed++
		}
		if d := difference("", reflect.ValueOf(rich()[i]), reflect.ValueOf(want)); d != "" {
			t.Error("of equals:", d)
		}
	}
	if changed < 80 {
		t.Errorf("only %d fields", changed)
	}
}

// change alters one leaf of a value, that with number *left, and returns its
// path. Lists lose an element as well.
func change(v reflect.Value, path string, left *int) string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type() != reflect.TypeFor[*regexp.Regexp]() {
			return change(v.Elem(), path, left)
		}
	case reflect.Struct:
		if v.Type() != reflect.TypeFor[netip.AddrPort]() {
			for i := range v.NumField() {
				if changed := change(v.Field(i), path+"."+v.Type().Field(i).Name, left); changed != "" {
					return changed
				}
			}
			return ""
		}
	case reflect.Slice:
		for i := range v.Len() {
			if changed := change(v.Index(i), path+"["+strconv.Itoa(i)+"]", left); changed != "" {
				return changed
			}
		}
	}
	if *left--; *left >= 0 {
		return ""
	}
	alter(open(v))
	return path
}

func alter(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if v.String() == "why" { // a reason: what counts is that there is one
			v.SetString("")
		} else {
			v.SetString(v.String() + "x")
		}
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.SetLen(v.Len() - 1)
	case reflect.Pointer:
		v.Set(reflect.ValueOf(regexp.MustCompile("^(?:v[0-9])$")))
	case reflect.Struct:
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("10.0.0.1:81")))
	default:
		if v.CanInt() {
			v.SetInt(v.Int() + 1)
		} else {
			v.SetUint(v.Uint() + 1)
		}
	}
}
