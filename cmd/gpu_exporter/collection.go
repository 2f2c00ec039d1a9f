// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"gpu_exporter/collector"
	"gpu_exporter/etc"
)

// collection is what is collected and how it is shown: the part of the
// configuration that a reload replaces.
type collection struct {
	cfg      config
	counters *collector.Counters
	sampler  collector.SamplerConfig
	families *collector.Families
	warnings []string
	compared bool // the models of the configuration were, with those of the GPUs
}

// newCollection reads the files that the configuration names.
func (e *exporter) newCollection(cfg config) (*collection, error) {
	hostname, err := hostnameValue(cfg, os.Hostname)
	if err != nil {
		return nil, err
	}
	counters, rules, err := loadCounters(cfg)
	if err != nil {
		return nil, err
	}
	xids, err := loadXIDCatalogue(cfg)
	if err != nil {
		return nil, err
	}
	c := &collection{cfg: cfg, counters: counters}
	for _, w := range counters.Warnings {
		c.warnings = append(c.warnings, w.String())
	}
	c.warnings = append(c.warnings, uncollected(counters)...)
	if cfg.HealthInterval == 0 {
		for _, counter := range counters.List {
			if counter.Computed.Checks() {
				c.warnings = append(c.warnings, fmt.Sprintf("%s comes of health checks, which --no-%s switches off: no series will come of it", counter.Name, optHealthCheck))
			}
		}
	}
	c.sampler = collector.SamplerConfig{
		Interval:     cfg.Interval,
		Fields:       watchedFields(counters),
		Models:       rules,
		Derived:      collector.DerivedFields(),
		Tracked:      collector.TrackedFields(counters.List, cfg.Resolution),
		Devices:      cfg.Devices,
		Switches:     cfg.Switches,
		CPUs:         cfg.CPUs,
		Hostengine:   cfg.Hostengine,
		DCGMLogLevel: cfg.DCGMLogLevel,
		Processes:    e.owners.needProcesses(),

		HealthInterval: cfg.healthInterval(),
	}
	var source collector.OwnerSource // not a nil *owners, which is no nil interface
	if e.owners != nil {
		source = ownerSource{e.owners, e.node}
	}
	c.families = collector.NewFamilies(collector.FamiliesConfig{
		Counters:      counters.List,
		XIDs:          xids,
		HostnameLabel: cfg.HostnameLabel,
		Hostname:      hostname,
		OldNames:      cfg.UseOldNamespace,
		ReplaceBlanks: cfg.ReplaceBlanks,
		LinksFromOne:  cfg.LinksFromOne,
		MaxAge:        cfg.MaxAge,
		XIDWindow:     cfg.XIDWindow,

		ClockEventsWindow: cfg.ClockWindow,
		HealthInterval:    cfg.healthInterval(),
		KernelLog:         e.kernelLog.status,
		Owners: collector.OwnerForm{
			UID:          cfg.PodUID,
			Workload:     cfg.Workload,
			SeriesLabels: cfg.showsPodLabels() && cfg.PodLabelsForm == podLabelsOnSeries,
			LabelsFamily: cfg.showsPodLabels() && cfg.PodLabelsForm == podLabelsInFamily,
			Claims:       cfg.DRA,
			HPCJobs:      cfg.HPCDir != "",
			VirtualGPUs:  cfg.VirtualGPUs,
			Usage:        cfg.Kubernetes && (cfg.PodUsage || cfg.VirtualGPUs),
		},
	}, e.node, e.supervisor, source)
	return c, nil
}

// healthInterval is the time between health checks, or 0. What a check finds is shown
// with the next sample: there is no use in more of them.
func (c config) healthInterval() time.Duration {
	if c.HealthInterval == 0 {
		return 0
	}
	return max(c.HealthInterval, c.Interval)
}

// countersFiles are the counters files to read; none is the built-in one.
func countersFiles(cfg config) []string {
	if cfg.Include != nil {
		return cfg.Include
	}
	if path := countersPath(cfg); path != "" {
		return []string{path}
	}
	return nil
}

// loadCounters reads the counters files and adds the fields of the configuration
// file, which stand in the place of counters with the same name, and those of some
// models. The rules say which GPUs have which.
func loadCounters(cfg config) (*collector.Counters, []collector.ModelRule, error) {
	all := &collector.Counters{}
	places := map[string]string{} // of the counters, by name: file and line
	files := countersFiles(cfg)
	if files == nil {
		builtIn, err := collector.ParseCounters(etc.DefaultCounters(), etc.DefaultCountersName)
		if err != nil {
			return nil, nil, err
		}
		all = builtIn
		for name, line := range builtIn.Lines {
			places[name] = placeIn(etc.DefaultCountersName, line)
		}
	}
	for _, path := range files {
		more, err := readCounters(path)
		if err != nil {
			return nil, nil, err
		}
		all.Warnings = append(all.Warnings, more.Warnings...)
		for _, c := range more.List {
			line := more.Lines[c.Name]
			if other, twice := places[c.Name]; twice {
				all.Warnings = append(all.Warnings, collector.Problem{File: path, Line: line, Message: fmt.Sprintf("%s is in %s already: this one is ignored", c.Name, other)})
				continue
			}
			places[c.Name] = placeIn(path, line)
			all.List = append(all.List, c)
		}
	}
	for _, c := range cfg.Fields {
		line := cfg.Lines[fieldKey{-1, c.Name}]
		all.Warnings = append(all.Warnings, oddities(c, all.List, cfg.ConfigFile, line, places)...)
		places[c.Name] = placeIn(cfg.ConfigFile, line)
		if i := slices.IndexFunc(all.List, func(have collector.Counter) bool { return have.Name == c.Name }); i >= 0 {
			all.List[i] = c
			continue
		}
		all.List = append(all.List, c)
	}
	rules, err := addModels(all, cfg, places)
	if cfg.Histograms {
		addHistograms(all.List, cfg.Resolution)
	}
	return all, rules, inLineOrder(errors.Join(err, checkFamilyNames(all.List, places)), cfg.ConfigFile)
}

// oddities are what a counters file would be warned of for the line of c, where others
// are the counters beside it, and places where these stand.
func oddities(c collector.Counter, others []collector.Counter, file string, line int, places map[string]string) (warnings []collector.Problem) {
	if odd := c.Odd(); odd != "" {
		warnings = append(warnings, collector.Problem{File: file, Line: line, Message: odd})
	}
	if i := slices.IndexFunc(others, c.Repeats); i >= 0 {
		warnings = append(warnings, collector.Problem{File: file, Line: line, Message: fmt.Sprintf(
			"%s is the same field (%d) as %s at %s: its values are exported under both names", c.Name, c.Field.ID, others[i].Name, places[others[i].Name])})
	}
	return warnings
}

func placeIn(file string, line int) string { return fmt.Sprintf("%s:%d", file, line) }

// addModels adds the fields that GPUs of some models have beside the others, and
// returns the rules of all models. A field that every GPU has stays with every GPU:
// who names it for one model does not mean to take it from the others.
func addModels(all *collector.Counters, cfg config, places map[string]string) (rules []collector.ModelRule, err error) {
	general := len(all.List)
	for at, m := range cfg.Models {
		for _, id := range m.Without {
			rules = append(rules, collector.ModelRule{Field: id, Match: m.Match})
		}
		for n, c := range m.Fields {
			line := cfg.Lines[fieldKey{at, c.Name}]
			if i := slices.IndexFunc(all.List[:general], func(have collector.Counter) bool { return have.Computed == 0 && have.Field.ID == c.Field.ID }); i >= 0 {
				all.Warnings = append(all.Warnings, collector.Problem{File: cfg.ConfigFile, Line: line, Message: readAnyway(cfg.Models, m, c, all.List[i].Name)})
				continue
			}
			all.Warnings = append(all.Warnings, oddities(c, m.Fields[:n], cfg.ConfigFile, line, places)...)
			rules = append(rules, collector.ModelRule{Field: c.Field.ID, Match: m.Match, Only: true})
			i := slices.IndexFunc(all.List, func(have collector.Counter) bool { return have.Name == c.Name })
			switch {
			case i < 0:
				all.List = append(all.List, c)
				places[c.Name] = placeIn(cfg.ConfigFile, line)
			case all.List[i] != c:
				err = errors.Join(err, fmt.Errorf("%s:%d: models: %s, for GPUs that match %q, is not what goes by that name at %s: give it another name, or the same field, type, help and other settings",
					cfg.ConfigFile, line, c.Name, m.Match, places[c.Name]))
			}
		}
	}
	return rules, err
}

// readAnyway says that an entry of models adds what is there already, under a name.
func readAnyway(models []modelConfig, m modelConfig, c collector.Counter, name string) string {
	for _, other := range models {
		if slices.Contains(other.Without, c.Field.ID) {
			return fmt.Sprintf("models: %s, for GPUs that match %q, is read of all GPUs anyway, as %s, but those that match %q, which are without it: this changes nothing, remove it",
				c.Name, m.Match, name, other.Match)
		}
	}
	return fmt.Sprintf("models: %s, for GPUs that match %q, is read of all GPUs anyway, as %s, and stays so: remove one of the two", c.Name, m.Match, name)
}

// unmatched returns the entries of models that fit none of the GPUs, each once.
func (c *collection) unmatched(gpus []string) (matches []string) {
	for _, m := range c.cfg.Models {
		expression, err := collector.ModelExpression(m.Match)
		if err == nil && !slices.ContainsFunc(gpus, expression.MatchString) && !slices.Contains(matches, m.Match) {
			matches = append(matches, m.Match)
		}
	}
	return matches
}

// countersName is what messages call the counters in use.
func countersName(cfg config) string {
	files := countersFiles(cfg)
	name := strings.Join(files, ", ")
	if files == nil {
		name = etc.DefaultCountersName
	}
	if len(cfg.Fields) > 0 || slices.ContainsFunc(cfg.Models, func(m modelConfig) bool { return len(m.Fields) > 0 }) {
		name = strings.TrimPrefix(name+" and ", " and ") + "the fields of " + cfg.ConfigFile
	}
	return cmp.Or(name, "no counters file")
}

// checkFamilyNames says which counters cannot be served together. The places are
// where they stand, by name.
func checkFamilyNames(counters []collector.Counter, places map[string]string) error {
	var errs []error
	of := map[string]string{}
	for _, c := range counters {
		for _, name := range c.FamilyNames() {
			if other, taken := of[name]; taken {
				errs = append(errs, fmt.Errorf("%s: %s and %s (%s) both make the metric %s, by their names, statistics or histograms: give one of them another name",
					places[c.Name], c.Name, other, places[other], name))
				continue
			}
			of[name] = c.Name
		}
	}
	return errors.Join(errs...)
}

// addHistograms makes of the counters what --sample.histograms asks for: histograms
// of utilization, power and temperature. Those are of the field's own values, so that
// a counter in another unit has none.
func addHistograms(counters []collector.Counter, resolution time.Duration) {
	for i := range counters {
		c := &counters[i]
		if c.Scale != 0 || c.NoStatistics() != "" {
			continue
		}
		switch c.Field.ID {
		case 1001: // a mean since the last sample: looking more often would shorten it
			c.Histogram = true
		case 140, 150, 155, 203:
			c.Histogram = true
			c.Resolution = cmp.Or(c.Resolution, resolution)
		}
	}
}

// reloadable are the fields of config that a reload can change.
var reloadable = []string{
	"ConfigFile", "Include", "Fields", "Models", "Lines", "Collectors", "Interval", "Resolution", "Histograms", "MaxAge", "Devices", "Switches", "CPUs",
	"LinksFromOne", "DCGMLogLevel", "UseOldNamespace", "HostnameLabel", "ReplaceBlanks",
	"XIDCatalogue", "XIDWindow", "ClockWindow", "HealthInterval",
}

// restarted are the other fields of config, with the flags that set them, which are
// keys of the configuration file, too. Another hostengine may be another machine's:
// its GPUs, XIDs and kernel log are not to be mixed with those of the one before.
var restarted = map[string]string{
	"Hostengine": optHostengine, "LibraryPath": optLibraryPath, "Simulate": optSimulate, "StartupChecks": "disable-startup-validate",
	"KernelLog": optKernelLog, "KMsg": optKMsg,
	"Kubernetes": "kubernetes", "GPUIDType": "kubernetes-gpu-id-type", "KubeletSocket": "pod-resources-kubelet-socket", "ResourceNames": "nvidia-resource-names",
	"NodeName": optNodeName, "VirtualGPUs": optVirtualGPUs, "PodUsage": optPodUsage, "DRA": optDRA,
	"PodLabels": optPodLabels, "PodUID": optPodUID, "Workload": optWorkload, "LabelAllow": optPodLabelAllow, "AnnotationAllow": optAnnotations,
	"PodLabelsForm": optPodLabelsForm, "MetadataSource": optMetadataSource, "PodsSocket": optPodsSocket, "Kubeconfig": optKubeconfig,
	"HPCDir": optHPCDir, "Slurm": optSlurm, "DockerSocket": optDockerSocket, "DockerLabels": optDockerLabels,
	"PodLogs": optPodLogs, "ProcFS": optProcFS, "CgroupFS": optCgroupFS,
	"ListenAddresses": optListenAddress, "SystemdSocket": optSystemdSocket, "WebConfigFile": optWebConfig, "MaxRequests": optMaxRequests,
	"Pprof": "enable-pprof", "AdminAPI": optAdminAPI, "LogLevel": optLogLevel, "LogFormat": optLogFormat,
}

// reloaded returns old with what a reload can change taken from asked, and the
// flags of what else differs.
func reloaded(old, asked config) (now config, others []string) {
	now = old
	to, from := reflect.ValueOf(&now).Elem(), reflect.ValueOf(asked)
	for i := range to.NumField() {
		name := to.Type().Field(i).Name
		switch {
		case slices.Contains(reloadable, name):
			to.Field(i).Set(from.Field(i))
		case !reflect.DeepEqual(to.Field(i).Interface(), from.Field(i).Interface()):
			others = append(others, restarted[name])
		}
	}
	return now, others
}
