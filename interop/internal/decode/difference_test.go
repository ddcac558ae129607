package proxyless

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"unsafe"
)

// difference is the path of the first field in which two kept values differ,
// with both, or empty. It goes over all fields there are, so that one that is
// added to a kept type has to be added to the reference as well. Reasons
// (failure and never) are compared by whether there is one. What is derived from other fields is left out.
func difference(path string, got, want reflect.Value) string {
	differs := func(got, want any) string { return fmt.Sprintf("%s: kept %v, the reference says %v", path, got, want) }
	switch {
	case got.Kind() == reflect.Pointer && (got.IsNil() || want.IsNil()):
		if got.IsNil() != want.IsNil() {
			return differs(!got.IsNil(), !want.IsNil())
		}
	case got.Type() == reflect.TypeFor[*regexp.Regexp]():
		return sameRegex(path, open(got).Interface().(*regexp.Regexp), open(want).Interface().(*regexp.Regexp))
	case got.Type() == reflect.TypeFor[*x509.CertPool]():
		if !open(got).Interface().(*x509.CertPool).Equal(open(want).Interface().(*x509.CertPool)) {
			return path + ": other certificates"
		}
	case got.Kind() == reflect.Interface:
		if g, w := open(got).Interface(), open(want).Interface(); !reflect.DeepEqual(g, w) {
			return differs(g, w)
		}
	case got.Kind() == reflect.Map:
		return differenceInMap(path, open(got), open(want))
	case alien(got.Type()):
		if g, w := open(got).Interface(), open(want).Interface(); g != w {
			return differs(g, w)
		}
	case got.Kind() == reflect.Pointer:
		return difference(path, got.Elem(), want.Elem())
	case got.Kind() == reflect.Struct:
		for i := range got.NumField() {
			name := got.Type().Field(i).Name
			if isDerived(got.Type(), name) {
				continue
			}
			if d := differenceInField(path+"."+name, name, got.Field(i), want.Field(i)); d != "" {
				return d
			}
		}
	case got.Kind() == reflect.Slice || got.Kind() == reflect.Array:
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

// derived are the fields that follow from the others, or remember calls.
var derived = []string{"tlsContext.text", "jwtFilter.known", "secretRef.digest", "trustRoots.list", "accessFilter.rules", "accessFilter.shadow", "accessFilter.custom",
	"assignment.labels", "endpoint.labels", "dnsName.labels", // by number: see sameLabels
}

func isDerived(t reflect.Type, field string) bool {
	return slices.Contains(derived, t.Name()+"."+field)
}

func differenceInMap(path string, got, want reflect.Value) string {
	if got.Len() != want.Len() {
		return fmt.Sprintf("%s: kept %d, the reference says %d", path, got.Len(), want.Len())
	}
	for _, key := range got.MapKeys() {
		if !want.MapIndex(key).IsValid() {
			return fmt.Sprintf("%s: the reference has no %v", path, key)
		}
		if d := difference(path+"["+key.String()+"]", copied(got.MapIndex(key)), copied(want.MapIndex(key))); d != "" {
			return d
		}
	}
	return ""
}

// copied gives a map's element, which has none, an address.
func copied(v reflect.Value) reflect.Value {
	to := reflect.New(v.Type()).Elem()
	to.Set(v)
	return to
}

func differenceInField(path, name string, got, want reflect.Value) string {
	if name != "failure" && name != "never" {
		return difference(path, got, want)
	}
	g, w := got.String(), want.String()
	if (g == "") != (w == "") {
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
			enrich(reflect.ValueOf(v).Elem(), "", nil)
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
// pointer what it leads to. Of a type that holds others of its kind the second
// within the first stays empty.
func enrich(v reflect.Value, name string, within []reflect.Type) {
	v = open(v)
	switch v.Kind() {
	case reflect.Pointer:
		if whole(v.Type()) {
			v.Set(sample(v.Type(), 0))
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		enrich(v.Elem(), name, within)
	case reflect.Struct:
		if alien(v.Type()) {
			alter(v)
			return
		}
		if repeats(v.Type(), within) {
			return
		}
		within = append(slices.Clip(within), v.Type())
		for i := range v.NumField() {
			if !isDerived(v.Type(), v.Type().Field(i).Name) {
				enrich(v.Field(i), v.Type().Field(i).Name, within)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		enrich(v.Index(0), name, within)
	case reflect.Array:
		enrich(v.Index(0), name, within)
	case reflect.Interface:
		v.Set(reflect.ValueOf("v"))
	case reflect.Map:
		element := reflect.New(v.Type().Elem()).Elem()
		enrich(element, name, within)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("v"), element)
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

// repeats says that a type is there already, twice where it is a list's element.
func repeats(t reflect.Type, within []reflect.Type) bool {
	n := 0
	for _, w := range within {
		if w == t {
			n++
		}
	}
	return n > 1
}

// whole are the pointers that are compared by what they mean.
func whole(t reflect.Type) bool {
	return t == reflect.TypeFor[*regexp.Regexp]() || t == reflect.TypeFor[*x509.CertPool]()
}

// sample is one of two values of such a type.
func sample(t reflect.Type, which int) reflect.Value {
	if t == reflect.TypeFor[*regexp.Regexp]() {
		return reflect.ValueOf(regexp.MustCompile([]string{"^(?:v[0-9]+)$", "^(?:v[0-9])$"}[which]))
	}
	pool := x509.NewCertPool()
	pool.AddCert(&x509.Certificate{Raw: []byte{byte(which)}, RawSubject: []byte("v")})
	return reflect.ValueOf(pool)
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
		if !whole(v.Type()) {
			if v.IsNil() {
				return ""
			}
			return change(v.Elem(), path, left)
		}
	case reflect.Struct:
		if !alien(v.Type()) {
			for i := range v.NumField() {
				if isDerived(v.Type(), v.Type().Field(i).Name) {
					continue
				}
				if changed := change(v.Field(i), path+"."+v.Type().Field(i).Name, left); changed != "" {
					return changed
				}
			}
			return ""
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if changed := change(v.Index(i), path+"["+strconv.Itoa(i)+"]", left); changed != "" {
				return changed
			}
		}
		if v.Kind() == reflect.Array || v.Len() == 0 {
			return ""
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
		v.Set(sample(v.Type(), 1))
	case reflect.Interface:
		v.Set(reflect.ValueOf("x"))
	case reflect.Map:
		v.Clear()
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
