// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

// Effective is a setting as it is in effect. Settings hold paths of secrets, but no secrets.
type Effective struct {
	Name, Value string
	Changed     bool // the value is not the default
}

// Effective returns all settings in the order of --help.
func (c Config) Effective() []Effective {
	defaults := Config{}
	l := loader{config: &defaults, settings: map[string]*setting{}}
	for _, s := range defaults.settings() {
		if s.def != "" {
			_ = s.parse([]string{s.def}) // TestTables checks all defaults
		}
		l.settings[s.name] = s
	}
	l.derive()
	var all []Effective
	table := c.settings()
	for _, subject := range subjects() {
		for _, s := range table {
			if s.isOwn() && s.subject() == subject.name {
				value := s.value()
				all = append(all, Effective{s.name, value, value != l.settings[s.name].value()})
			}
		}
	}
	return all
}
