package proxyless

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"
	"testing"
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
	case alien(got.Type()):
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

// sameRegex takes a pattern that is the same, or holds a pattern that is anchored at both ends against one without
// anchors whose longest match has to be the whole text.
func sameRegex(path string, got, want *regexp.Regexp) string {
	if got.String() == want.String() {
		return ""
	}
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
		values := []any{&routeConfig{}, &listener{}, &cluster{}, &assignment{}}
		for _, v := range values {
			enrich(reflect.ValueOf(v).Elem(), "")
		}
		return values
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
	if changed < 300 {
		t.Errorf("only %d fields", changed)
	}
}

// enrich fills all fields there are: one element in each list, and of every
// pointer what it leads to.
func enrich(v reflect.Value, name string) {
	v = open(v)
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type() == reflect.TypeFor[*regexp.Regexp]() {
			v.Set(reflect.ValueOf(regexp.MustCompile("^(?:v[0-9]+)$")))
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		enrich(v.Elem(), name)
	case reflect.Struct:
		if alien(v.Type()) {
			alter(v)
			return
		}
		for i := range v.NumField() {
			enrich(v.Field(i), v.Type().Field(i).Name)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		enrich(v.Index(0), name)
	case reflect.String:
		if v.SetString("v"); name == "failure" || name == "never" {
			v.SetString("why")
		}
	case reflect.Bool:
		v.SetBool(true)
	default:
		alter(v)
	}
}

// alien are the structs that are compared whole.
func alien(t reflect.Type) bool {
	return t == reflect.TypeFor[netip.AddrPort]() || t == reflect.TypeFor[netip.Prefix]()
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
		if !alien(v.Type()) {
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
		if v.Type() == reflect.TypeFor[netip.Prefix]() {
			old := v.Interface().(netip.Prefix)
			v.Set(reflect.ValueOf(netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), (old.Bits()+2)%32)))
			return
		}
		old := v.Interface().(netip.AddrPort)
		v.Set(reflect.ValueOf(netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), old.Port()+1)))
	default:
		if v.CanFloat() {
			v.SetFloat(v.Float() + 1)
			return
		}
		if v.CanInt() {
			v.SetInt(v.Int() + 1)
		} else {
			v.SetUint(v.Uint() + 1)
		}
	}
}
