// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/version"

	"gpu_exporter/collector/model"
)

// ProgramName is the name of the program in messages.
const ProgramName = "gpu_exporter"

// The commands.
const (
	Serve       = "serve"
	Once        = "once"
	CheckConfig = "check-config"
	Doctor      = "doctor"
	Fields      = "fields"
	Ready       = "ready"
)

const defaultExporter = "http://localhost:9400"

// CommandLine is the result of parsing arguments and environment.
type CommandLine struct {
	Command  string // empty: help or version was printed
	Config   Config
	Warnings []string
	// Again reads the configuration again, for a reload.
	Again func() (Config, []string, error)

	All    bool   // for once: also the families of the exporter itself
	Output string // of doctor and fields: OutputText or OutputJSON
	// FieldNames, FieldKinds and FieldTypes select the output of fields. Node lets it
	// sample this node.
	FieldNames, FieldKinds, FieldTypes []string
	Node                               bool
	// Exporter is the base URL of the exporter that ready asks.
	Exporter string

	help, version bool
}

// Values of --output.
const (
	OutputText = "text"
	OutputJSON = "json"
)

// settings is the table of the flags that are not part of a configuration.
func (c *CommandLine) settings() []*setting {
	return []*setting{
		{name: "all", commands: []string{Once}, target: boolean(&c.All),
			help: "Print the metrics of the exporter itself as well, which node_exporter's textfile collector does not accept."},
		{name: "output", def: OutputText, arg: "FORMAT", commands: []string{Doctor, Fields}, target: oneOf(&c.Output, OutputText, OutputJSON),
			help: "Format of the output: text or json."},
		{name: "entity", arg: "KIND", commands: []string{Fields}, target: list(&c.FieldKinds),
			help: "List only the fields of these kinds of entities: " + ListOf(model.KindNames()) + ". Repeatable, or separated by commas."},
		{name: "type", arg: "TYPE", commands: []string{Fields}, target: list(&c.FieldTypes),
			help: "List only fields of these types, such as counter, gauge, label, int64 or string. Repeatable, or separated by commas."},
		{name: "node", commands: []string{Fields}, target: boolean(&c.Node),
			help: "Sample this node, and list which of its entities have a value of each field, or the reason why it is missing."},
		{name: "help", aliases: "h", target: boolean(&c.help), help: "Print this help."},
		{name: "version", aliases: "v", target: boolean(&c.version), help: "Print the version."},
	}
}

// ReadConfigMap returns the data of a ConfigMap. Without a kubeconfig, it uses the pod's
// service account.
type ReadConfigMap func(kubeconfig, namespace, name string) (map[string]string, error)

// Parse reads arguments and environment. It prints help and version to stdout. The
// error is an [*Error]. With a nil configMap, none is read.
func Parse(args, environ []string, stdout io.Writer, configMap ReadConfigMap) (CommandLine, error) {
	var line CommandLine
	own := line.settings()
	table := append(slices.Clone(own), new(Config).settings()...)
	flags, operands, mistakes := splitArgs(args, table)
	l := loader{config: &Config{}, flags: flags, lookup: Lookup(nil)}
	for _, s := range own {
		l.resolve(s)
	}
	for _, p := range l.problems {
		mistakes = append(mistakes, p.Message)
	}
	line.Command = Serve
	if len(operands) > 0 {
		line.Command, operands = operands[0], operands[1:]
	}
	line.Exporter = defaultExporter
	if line.Command == Ready && len(operands) > 0 {
		line.Exporter, operands = operands[0], operands[1:]
		if !strings.HasPrefix(line.Exporter, "http://") && !strings.HasPrefix(line.Exporter, "https://") {
			mistakes = append(mistakes, fmt.Sprintf("%q is not the URL of an exporter: write one such as %s", line.Exporter, defaultExporter))
		}
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	known := slices.Contains(names, line.Command)
	switch {
	case len(mistakes) > 0: // an operand may be the value of an unknown flag
	case line.version:
		_, _ = fmt.Fprintln(stdout, version.Print(ProgramName))
		return CommandLine{}, nil
	case line.help || line.Command == "help":
		writeHelp(stdout, line.Command, table)
		return CommandLine{}, nil
	case !known:
		mistakes = append(mistakes, fmt.Sprintf("unknown command %q: use %s%s", line.Command, ListOf(names), toggleHint(line.Command)))
	case line.Command == Fields:
		line.FieldNames = operands
	case len(operands) > 0:
		mistakes = append(mistakes, fmt.Sprintf("unexpected argument %q%s", operands[0], toggleHint(operands[0])))
	}
	for _, s := range own {
		if flags[s.name] != nil && known && s.commands != nil && !slices.Contains(s.commands, line.Command) {
			mistakes = append(mistakes, fmt.Sprintf("--%s is a flag of %s, not of %s", s.name, ListOf(s.commands), line.Command))
		}
	}
	for _, s := range table[len(own):] {
		if flags[s.name] != nil && line.Command == Ready {
			mistakes = append(mistakes, fmt.Sprintf("--%s has no effect on ready: write only the URL of an exporter", s.name))
		}
	}
	for _, name := range []string{"simulate", "dcgm.hostengine", "remote-hostengine-info"} {
		if flags[name] != nil && line.Command == Fields && !line.Node {
			mistakes = append(mistakes, fmt.Sprintf("--%s has no effect on fields without --node: add --node, or remove it", name))
		}
	}
	if len(mistakes) > 0 {
		return CommandLine{}, &Error{Mistakes: mistakes}
	}
	if line.Command == Ready {
		return line, nil // the configuration is that of the other exporter
	}
	lookup := Lookup(environ)
	if line.Command == Fields && !line.Node {
		configMap = nil // the catalogue has no counters
	}
	line.Again = func() (Config, []string, error) {
		return load(flags, lookup, configMap, line.Command == Serve || line.Command == CheckConfig)
	}
	var err error
	line.Config, line.Warnings, err = line.Again()
	line.Warnings = append(unknownVariables(environ, table), line.Warnings...)
	return line, err
}

// unknownVariables returns a warning for each variable with the prefix of ours that no flag
// has. Kubernetes sets such variables for a Service whose name begins with gpu-exporter, for
// example GPU_EXPORTER_SERVICE_HOST and GPU_EXPORTER_PORT_9400_TCP.
func unknownVariables(environ []string, table []*setting) (warnings []string) {
	var known []string // without the prefix
	for _, s := range table {
		if name, ok := strings.CutPrefix(s.env, envPrefix); ok {
			known = append(known, name)
		}
	}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, envPrefix)
		if !ours || value == "" || slices.Contains(known, name) || strings.Contains(variable, "_SERVICE_") || strings.Contains(variable, "_PORT") {
			continue
		}
		advice := "see --help, or remove it"
		if suggestion := nearest(name, known); suggestion != "" {
			advice = "did you mean " + envPrefix + suggestion + "?"
		}
		warnings = append(warnings, fmt.Sprintf("%s: no effect: unknown variable: %s", variable, advice))
	}
	return warnings
}

// splitArgs separates flags, by the names of their settings, from the other arguments.
// As in Go's package flag, a flag has one dash or two, and its value follows after = or in
// the next argument. The value of a toggle follows only after =. Unlike there, flags may
// follow other arguments, and a toggle has the form --no-NAME as well.
func splitArgs(args []string, table []*setting) (flags map[string][]string, operands, mistakes []string) {
	flags = map[string][]string{}
	known := map[string]*setting{}
	for _, s := range table {
		for _, name := range s.names() {
			known[name] = s
		}
	}
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return flags, append(operands, args[i+1:]...), mistakes
		}
		if len(args[i]) < 2 || args[i][0] != '-' {
			operands = append(operands, args[i])
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(args[i][1:], "-"), "=")
		s, negated := known[name], false
		if base, found := strings.CutPrefix(name, "no-"); s == nil && found && known[base] != nil && known[base].kind == toggle {
			s, negated = known[base], true
		}
		switch {
		case s == nil:
			mistakes = append(mistakes, unknownFlag(name, known))
			continue
		case s.kind == toggle:
			if !hasValue {
				value = "true"
			}
			on, err := parseBool(value)
			if err != nil {
				mistakes = append(mistakes, fmt.Sprintf("%s: %v", dashed(name), err))
				continue
			}
			value = strconv.FormatBool(on != negated)
		case !hasValue && i+1 == len(args):
			mistakes = append(mistakes, dashed(name)+": the value is missing")
			continue
		case !hasValue:
			i++
			value = args[i]
		}
		flags[s.name] = append(flags[s.name], value)
	}
	return flags, operands, mistakes
}

func unknownFlag(name string, known map[string]*setting) string {
	message := "unknown flag " + dashed(name)
	if suggestion := nearest(name, slices.Sorted(maps.Keys(known))); suggestion != "" {
		message += ": did you mean --" + suggestion + "?"
	}
	return message
}

// dashed returns a flag with one dash or two, as it is usually written.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// toggleHint explains an argument such as the true of "--kubernetes.enabled true".
func toggleHint(arg string) string {
	if _, err := strconv.ParseBool(arg); err != nil {
		return ""
	}
	return fmt.Sprintf(" (a switch takes its value after =, as in --kubernetes.enabled=%s)", arg)
}
