// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"

	"gpu_exporter/collector/field"
	"gpu_exporter/collector/xid"
	"gpu_exporter/etc"
)

// Error lists all mistakes in a configuration.
type Error struct {
	Mistakes []string // one line each
	// InFile reports that all mistakes are in the configuration file.
	InFile bool
}

// Error returns one line per mistake.
func (e *Error) Error() string { return strings.Join(e.Mistakes, "\n") }

// loader reads a configuration, and collects all that is wrong.
type loader struct {
	config   *Config
	table    []*setting          // without config.file
	settings map[string]*setting // by their names
	flags    map[string][]string // values of flags, by the names of their settings
	lookup   func(variable string) (string, bool)

	configMap ReadConfigMap // nil: none is read

	// The content of the configuration file in addition to values of settings.
	fields []counterEntry
	models []modelEntry

	counters []counterEntry
	problems []field.Problem
	warnings []string
}

// load builds a configuration. A flag wins over its variable, both over the flag and the
// variable of dcgm-exporter with the same meaning, these over the configuration file, the
// file over the default. An empty variable counts as unset. With an error, the
// configuration still has its Files. The warnings are about settings that work, but are
// probably not intended. checkWeb is for callers that start a server: it reads its own
// configuration file.
func load(flags map[string][]string, lookup func(string) (string, bool), configMap ReadConfigMap, checkWeb bool) (Config, []string, error) {
	l := loader{config: &Config{}, settings: map[string]*setting{}, flags: flags, lookup: lookup, configMap: configMap}
	for _, s := range l.config.settings() {
		l.settings[s.name] = s
		if s.name == "config.file" {
			l.resolve(s)
		} else {
			l.table = append(l.table, s)
		}
	}
	if path := l.config.ConfigFile; path != "" {
		l.readFile()
		l.config.Files = []string{path}
	}
	for _, s := range l.table {
		if s.means == "" {
			l.resolve(s)
		}
	}
	l.checkNeeds()
	l.derive()
	l.loadCounters()
	l.loadXIDs()
	if len(l.problems) == 0 {
		l.checkTogether()
	}
	if path := l.config.WebConfigFile; checkWeb {
		if err := web.Validate(path); err != nil {
			l.fail(fmt.Errorf("--web.config.file=%s: %w", path, err))
		}
	}
	return *l.config, l.warnings, l.err()
}

// given returns the values of a flag, or else of its variable, and the name of that one.
// Values of dcgm-exporter are converted to ours.
func (l *loader) given(s *setting) (values []string, from string) {
	all, from := l.flags[s.name], "--"+s.name
	if v, _ := l.lookup(s.env); all == nil && v != "" {
		all, from = []string{v}, s.env
	}
	if s.kind != repeatable && len(all) > 1 {
		all = all[len(all)-1:]
	}
	_, fixed, isFixed := strings.Cut(s.means, "=")
	for _, v := range all {
		converted := v
		if s.convert != nil {
			converted = s.convert(v)
		}
		if isFixed {
			on, err := parseBool(v)
			if err != nil {
				l.fail(fmt.Errorf("%s: %w", from, err))
			}
			if converted = fixed; !on {
				converted = ""
			}
		}
		if converted != "" || v == "" {
			values = append(values, converted)
		}
	}
	return values, from
}

// resolve finds the value of a setting and parses it.
func (l *loader) resolve(s *setting) {
	s.from = "the default of --" + s.name
	if s.def != "" {
		if err := s.parse([]string{s.def}); err != nil {
			l.failSetting(s, "%v", err)
		}
	}
	usual := s.value()
	values, from := l.given(s)
	if s.compat != nil {
		switch others, other := l.given(s.compat); {
		case values == nil:
			values, from = others, other
		case others != nil:
			l.warn("%s wins over %s, which is the same setting: remove one of them", from, other)
		}
	}
	switch {
	case values != nil:
		s.line = 0
	case s.line > 0:
		from = fmt.Sprintf("%s:%d: %s", l.config.ConfigFile, s.line, s.name)
		for _, node := range s.file {
			values = append(values, l.fromFile(s, node.Value))
		}
	default:
		return
	}
	s.set, s.from = true, from
	if len(values) == 0 {
		return // an empty list in the file
	}
	err := s.parse(values)
	changed := s.value() != usual && values[len(values)-1] != ""
	switch {
	case err != nil:
		l.failSetting(s, "%v", err)
	case changed && s.instead != "":
		l.failSetting(s, "this flag of dcgm-exporter is not available: %s", s.instead)
	case changed && s.inert != "":
		l.warn("%s: no effect: %s", s.from, s.inert)
	}
}

func (l *loader) warn(format string, args ...any) {
	l.warnings = append(l.warnings, fmt.Sprintf(format, args...))
}

// fail reports the lines of an error that is not about the configuration file.
func (l *loader) fail(err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		l.problems = append(l.problems, field.Problem{Message: line})
	}
}

func (l *loader) failSetting(s *setting, format string, args ...any) {
	if s.line > 0 {
		l.failAt(s.line, "%s: %s", s.name, fmt.Sprintf(format, args...))
		return
	}
	l.fail(fmt.Errorf(s.from+": "+format, args...))
}

// err returns all mistakes. Those in the configuration file follow in the order of its
// lines.
func (l *loader) err() error {
	if len(l.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(l.problems, func(a, b field.Problem) int { return a.Line - b.Line })
	e := &Error{InFile: true}
	for _, p := range l.problems {
		line := p.Message
		if p.File != "" {
			line = p.String()
		}
		e.Mistakes = append(e.Mistakes, line)
		e.InFile = e.InFile && p.File != "" && p.File == l.config.ConfigFile
	}
	return e
}

// derive sets what depends on several settings.
func (l *loader) derive() {
	c := l.config
	if !l.settings["sample.max-age"].set {
		c.MaxAge = max(3*c.Interval, 30*time.Second)
	}
	if c.Simulate != "" && !l.settings["web.listen-address"].set {
		c.ListenAddresses = []string{simulatedAddress}
	}
	if !c.dcgmLog {
		c.DCGMLogLevel = "NONE"
	}
	if !c.healthCheck {
		c.HealthInterval = 0
	}
	if c.HostnameLabel == noLabel {
		c.HostnameLabel = ""
	}
	c.LinksFromOne = c.linkBase == "one-based"
}

// loadXIDs reads the XID catalogue.
func (l *loader) loadXIDs() {
	c := l.config
	xids, err := xid.ParseCatalogue(etc.XIDCatalogue(), etc.XIDCatalogueName)
	if err != nil {
		l.fail(err)
		return
	}
	c.XIDs = xids
	if c.xidCatalogue == "" {
		return
	}
	c.Files = append(c.Files, c.xidCatalogue)
	f, err := os.Open(c.xidCatalogue)
	if err != nil {
		l.failSetting(l.settings["xid.catalogue"], "reading the XID catalogue: %v: check the path", err)
		return
	}
	defer func() { _ = f.Close() }() // opened for reading
	changes, err := xid.ParseCatalogue(f, c.xidCatalogue)
	if err != nil {
		l.fail(err)
		return
	}
	c.XIDs = xids.With(changes)
}

// checkTogether finds settings that contradict each other, and those without effect.
// It runs only if each setting is valid by itself.
func (l *loader) checkTogether() {
	c := l.config
	interval := l.settings["sample.interval"]
	if c.Interval < advisedInterval {
		l.warn("%s: %v is shorter than %v: it costs CPU time on the node, and Prometheus rarely scrapes that often", interval.from, c.Interval, advisedInterval)
	}
	const tooLong = "%v is longer than the %v between samples (%s): make it shorter, or remove it"
	if s := l.settings["sample.resolution"]; s.set && c.Resolution > c.Interval {
		l.failSetting(s, tooLong, c.Resolution, c.Interval, interval.from)
	}
	fields := l.fields
	for _, m := range l.models {
		fields = slices.Concat(fields, m.fields)
	}
	for _, f := range fields {
		if f.Resolution > c.Interval {
			l.failAt(f.resolutionLine, "resolution: "+tooLong, f.Resolution, c.Interval, interval.from)
		}
	}
	if s := l.settings["sample.max-age"]; c.MaxAge < c.Interval {
		l.failSetting(s, "%v is shorter than the interval of %v: each sample would expire before the next one", c.MaxAge, c.Interval)
	}
	if a, b := l.settings["simulate"], l.settings["dcgm.library-path"]; a.set && b.set {
		l.fail(fmt.Errorf("%s and %s exclude each other: both name the directory of libdcgm.so.4", a.from, b.from))
	}
	if _, inPod := l.lookup("KUBERNETES_SERVICE_HOST"); inPod && c.Kubernetes && c.NodeName == "" {
		l.warn("NODE_NAME is not set: the name of the pod is used as the name of the node; set it from spec.nodeName")
	}
}

// checkNeeds warns about flags without effect.
func (l *loader) checkNeeds() {
	isOff := func(s *setting) bool { return slices.Contains([]string{"", "false", "off", "none", "NONE"}, s.value()) }
	for _, s := range l.table {
		needs := strings.Fields(s.needs)
		if s.set && !isOff(s) && len(needs) > 0 && !slices.ContainsFunc(needs, func(name string) bool { return !isOff(l.settings[name]) }) {
			l.warn("%s: no effect without --%s", s.from, strings.Join(needs, " or --"))
		}
	}
}

// Reload returns the running configuration with the live settings of next, and the
// names of the settings that differ but need a restart.
func Reload(running, next Config) (merged Config, restart []string) {
	now, then := running.Static.settings(), next.Static.settings()
	for i, s := range now {
		if s.value() != then[i].value() {
			restart = append(restart, s.name)
		}
	}
	return Config{Live: next.Live, Static: running.Static}, restart
}
