package proxyless

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// LoadConfig reads a dubbo.properties file and Dubbo's environment.
//
// The file has the syntax of java.util.Properties. Names may be written in
// Dubbo's camelCase, in kebab-case or with dots (qosPort, qos-port, qos.port);
// ${NAME} and ${NAME:default} stand for an environment variable or another key
// of the file. Keys that do not start with "dubbo." are left to the
// application. Where a variable such as DUBBO_REGISTRY_ADDRESS is set, it
// overrides the key of the same name.
//
// A key that is not known, or a value that is not honoured, becomes an entry of
// Config.Notices. A value that cannot be read is an error that names the file,
// the line and the key; all of them are reported at once.
func LoadConfig(path string) (Config, error) { return loadConfig(path, osEnvironment()) }

// ParseConfig is LoadConfig for a file that is already in memory, such as an
// embedded one; name is what notices and errors call it.
func ParseConfig(name string, properties []byte) (Config, error) {
	return parseConfig(name, properties, osEnvironment())
}

func loadConfig(path string, env environment) (Config, error) {
	data, err := env.readFile(path)
	if err != nil {
		return Config{}, &Error{Stage: StageConfig, Resource: path, Reason: "cannot be read", Err: err,
			Advice: "name the dubbo.properties file of this application, or use a literal Config"}
	}
	return parseConfig(path, data, env)
}

func parseConfig(name string, properties []byte, env environment) (Config, error) {
	entries, err := parseProperties(properties)
	if err != nil {
		return Config{}, &Error{Stage: StageConfig, Resource: name, Reason: err.Error(), Err: err,
			Advice: "write the file in the syntax of Java's .properties"}
	}
	l := newLoader(env)
	l.addFile(name, entries)
	l.addEnvironment()
	if err := l.apply(); err != nil {
		return Config{}, err
	}
	l.config.loaded = true
	return l.config, nil
}

// dubboEnvironment is the Config that Dubbo's environment alone describes.
func dubboEnvironment(env environment) (Config, error) {
	l := newLoader(env)
	l.addEnvironment()
	err := l.apply()
	return l.config, err
}

// settingItem is one setting, from wherever it came.
type settingItem struct {
	file       string // or environmentFile
	line       int
	name       string // as written
	key, value string // key in canonical form
	parameter  bool   // cut off a registry address
	order      int    // among all that were put
}

const environmentFile = "environment"

// loader collects items, of which the last of each key counts, and applies
// them to its Config.
type loader struct {
	config Config
	env    environment
	items  map[string]settingItem // by key
	puts   int
	texts  map[string]string // every entry of the file, for placeholders
	errs   []malformedItem
}

// malformedItem is an error with where it belongs among the others.
type malformedItem struct {
	line int
	err  error
}

func newLoader(env environment) *loader {
	return &loader{env: env, items: map[string]settingItem{}, texts: map[string]string{}}
}

const dubboPrefix = "dubbo."

func (l *loader) addFile(path string, entries []property) {
	for _, e := range entries {
		l.texts[e.key] = strings.TrimSpace(e.value)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.key, dubboPrefix) {
			l.addItem(settingItem{file: path, line: e.line, name: e.key, key: canonicalKey(e.key), value: strings.TrimSpace(e.value)})
		}
	}
}

// addItem resolves placeholders and takes the parameters out of a registry
// address, which Dubbo treats as keys of the registry.
func (l *loader) addItem(it settingItem) {
	if it.value == "" {
		return
	}
	value, err := l.resolve(it.value)
	if err != nil {
		l.malformed(it, err)
		return
	}
	it.value = value
	if it.key != registryAddressKey {
		l.put(it)
		return
	}
	address, parameters, _ := strings.Cut(value, "?")
	it.value = address
	l.dropParameters(it)
	l.put(it)
	for _, parameter := range strings.FieldsFunc(parameters, func(r rune) bool { return r == '&' }) {
		name, value, _ := strings.Cut(parameter, "=")
		l.put(settingItem{file: it.file, line: it.line, name: it.name + "?" + name,
			key: canonicalKey(registryPrefix + name), value: value, parameter: true})
	}
}

// dropParameters forgets what the registry address before this one brought
// along.
func (l *loader) dropParameters(it settingItem) {
	if _, again := l.items[registryAddressKey]; !again {
		return
	}
	maps.DeleteFunc(l.items, func(_ string, old settingItem) bool {
		if old.parameter {
			l.overridden(old, it)
		}
		return old.parameter
	})
}

// put replaces an earlier item of the same key.
func (l *loader) put(it settingItem) {
	if old, ok := l.items[it.key]; ok && old.value != it.value {
		l.overridden(old, it)
	}
	l.puts++
	it.order = l.puts
	l.items[it.key] = it
}

// overridden reports a setting that another of the same source replaces, since
// one of the two was meant in vain.
func (l *loader) overridden(old, by settingItem) {
	if old.file == by.file {
		l.notice(old, "is overridden by "+filePosition(by.file, by.line)+" "+by.name)
	}
}

// addEnvironment reads the variables in the order of their names, and after
// them those that bind a port or an address, which Dubbo prefers.
func (l *loader) addEnvironment() {
	var variables []settingItem
	for _, variable := range l.env.environ() {
		name, value, _ := strings.Cut(variable, "=")
		key := variableKey(name)
		if _, known := findSetting(key); known {
			variables = append(variables, settingItem{file: environmentFile, name: name, key: key, value: strings.TrimSpace(value)})
		}
	}
	slices.SortFunc(variables, func(a, b settingItem) int { return cmp.Compare(a.name, b.name) })
	for _, it := range variables {
		l.addVariable(it)
	}
}

// variableKey is the key that a variable sets, or "". Dubbo upper-cases the
// whole key, so that anything else is another's.
func variableKey(name string) string {
	if name != strings.ToUpper(name) {
		return ""
	}
	if bound, ok := strings.CutPrefix(name, tripleBindPrefix); ok && strings.HasSuffix(bound, "_TO_BIND") {
		name = bound
	}
	return canonicalKey(name)
}

// addVariable leaves out the variables that Kubernetes sets for a Service
// whose name happens to read like a setting (dubbo-protocol gives
// DUBBO_PROTOCOL_PORT=tcp://10.0.0.1:50051).
func (l *loader) addVariable(it settingItem) {
	if strings.HasPrefix(it.value, "tcp://") || strings.HasPrefix(it.value, "udp://") {
		l.notice(it, "is what Kubernetes sets for a Service of that name, and not a setting")
		return
	}
	l.addItem(it)
}

// apply hands every item to its setting, and reports all that went wrong in
// the order of the file.
func (l *loader) apply() error {
	items := slices.SortedFunc(maps.Values(l.items), func(a, b settingItem) int {
		return cmp.Or(bindRank(a)-bindRank(b), a.order-b.order)
	})
	for _, it := range items {
		l.applyItem(it)
	}
	slices.SortStableFunc(l.config.Notices, func(a, b Notice) int {
		return cmp.Or(cmp.Compare(lineRank(a.Line), lineRank(b.Line)), cmp.Compare(a.Key, b.Key))
	})
	slices.SortStableFunc(l.errs, func(a, b malformedItem) int { return cmp.Compare(lineRank(a.line), lineRank(b.line)) })
	var errs []error
	for _, m := range l.errs {
		errs = append(errs, m.err)
	}
	return errors.Join(errs...)
}

// lineRank puts the environment, which has no lines, behind the file.
func lineRank(line int) uint { return uint(line) - 1 }

func (l *loader) applyItem(it settingItem) {
	s, known := findSetting(it.key)
	if !known {
		l.notice(it, unknownKey(it.key))
		return
	}
	err := s.set(&l.config, it.value)
	var problem notHonoured
	switch {
	case errors.As(err, &problem):
		l.notice(it, string(problem))
	case err != nil:
		l.malformed(it, err)
	}
}

func (l *loader) notice(it settingItem, problem string) {
	l.config.Notices = append(l.config.Notices,
		Notice{it.file, it.line, it.name, shownValue(it.name, it.value), problem})
}

func (l *loader) malformed(it settingItem, err error) {
	l.errs = append(l.errs, malformedItem{it.line, &Error{
		Stage: StageConfig, Resource: filePosition(it.file, it.line) + " " + it.name,
		Reason: fmt.Sprintf("%q %v", shownValue(it.name, it.value), err),
	}})
}

func filePosition(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// resolve replaces ${NAME} and ${NAME:default}, once: what is put in is not
// looked at again.
func (l *loader) resolve(value string) (string, error) {
	var out strings.Builder
	for {
		plain, after, found := strings.Cut(value, "${")
		out.WriteString(plain)
		if !found {
			return out.String(), nil
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", errors.New("opens ${ and does not close it")
		}
		text, err := l.lookup(name)
		if err != nil {
			return "", err
		}
		out.WriteString(text)
		value = rest
	}
}

func (l *loader) lookup(placeholder string) (string, error) {
	name, text, found := strings.Cut(placeholder, ":")
	if variable := l.env.getenv(name); variable != "" {
		text, found = variable, true
	} else if other, ok := l.texts[name]; ok {
		text, found = other, true
	}
	if !found {
		return "", fmt.Errorf("names %s, which is neither an environment variable nor a key of the file", name)
	}
	if strings.Contains(text, "${") {
		return "", errors.New("has a placeholder within a placeholder, which is not resolved")
	}
	return text, nil
}

// keySeparators is made once: a Replacer's tables cost more than its use.
var keySeparators = strings.NewReplacer(".", "", "-", "", "_", "")

// canonicalKey drops what spellings of one key differ in.
func canonicalKey(name string) string {
	key := strings.ToLower(keySeparators.Replace(name))
	if parameter, ok := strings.CutPrefix(key, "dubboregistryparameters"); ok {
		key = "dubboregistry" + parameter
	}
	switch key {
	case "dubboregistrysecurity":
		return "dubboregistrysecure"
	case "dubboapplicationqosanonymousaccessallowcommands":
		return "dubboapplicationqosanonymousallowcommands"
	}
	return key
}

// shownValue is the value as notices and errors may show it: on one line, not
// too long, without what may be a password.
func shownValue(name, value string) string {
	if looksSecret(name) || looksSecret(value) {
		return hidden
	}
	if at := strings.LastIndexByte(value, '@'); at >= 0 {
		value = hidden + value[at:]
	}
	const most = 200
	value = strings.ToValidUTF8(value[:min(len(value), most)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, value)
}

const hidden = "(hidden)"

// looksSecret tells by the name whether a value may be a secret.
func looksSecret(name string) bool {
	key := canonicalKey(name)
	return slices.ContainsFunc([]string{"password", "passwd", "secret", "token", "credential", "accesskey", "privatekey", "apikey"},
		func(word string) bool { return strings.Contains(key, word) })
}
