// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"gpu_exporter/collector"
)

const programName = "gpu_exporter"

// The subcommands.
const (
	commandServe       = "serve"
	commandOnce        = "once"
	commandCheckConfig = "check-config"
	commandDoctor      = "doctor"
	commandFields      = "fields"
	commandSampler     = "sampler" // how the exporter starts its sampler process
)

// The flag of doctor and fields, and its values.
const (
	optOutput  = "output"
	outputText = "text"
	outputJSON = "json"
)

// commandLine is what the arguments and the environment ask for.
type commandLine struct {
	command  string // empty: nothing is left to do, as after --help
	config   config
	warnings []string
	// again reads environment and configuration file once more, for a reload.
	again func() (config, []string, error)
	// outputJSON asks doctor and fields for JSON in place of text.
	outputJSON bool
	fields     fieldQuery // what fields is to list
}

// parseCommandLine reads arguments and environment. Help and version texts go to
// stdout. An error lists all that is wrong, one line each.
func parseCommandLine(args, environ []string, stdout, stderr io.Writer) (commandLine, error) {
	opts := options()
	args, problems := normalizeArgs(args, spellings(opts))
	if problem := checkCommand(args); problem != "" {
		problems = append(problems, problem)
	}
	if len(problems) > 0 {
		return commandLine{}, errors.New(strings.Join(problems, "\n"))
	}

	app := kingpin.New(programName, "Prometheus exporter for NVIDIA GPUs: samples DCGM, joins pods, serves metrics. "+
		"Flags may be written with one dash or two. A flag wins over its environment variable; a variable that is set but empty counts as not set.")
	app.UsageWriter(stdout)
	app.ErrorWriter(stderr)
	app.HelpFlag.Short('h')
	app.Version(version.Print(programName)).VersionFlag.Short('v')
	done := false
	app.Terminate(func(int) { done = true }) // kingpin then goes on parsing
	kingpinflag.AddFlags(app, defaultListenAddress)
	readers := make(map[string]func() given, len(opts))
	for _, o := range opts {
		readers[o.name] = o.declare(app)
	}
	app.Command(commandServe, "Serve metrics over HTTP.").Default()
	app.Command(commandOnce, "Take one sample, print the metrics, and exit.")
	app.Command(commandCheckConfig, "Check flags, environment and files, print what would be collected, and exit.")
	doctor := app.Command(commandDoctor, "Find out what works on this node and what does not, and why, and exit with 1 if something that was asked for is broken.")
	output := doctor.Flag(optOutput, "Format: text or json.").Default(outputText).Enum(outputText, outputJSON)
	list := app.Command(commandFields, "List the DCGM fields that are known, and with --node say which of them this node has.")
	listOutput := list.Flag(optOutput, "Format: text or json.").Default(outputText).Enum(outputText, outputJSON)
	listEntities := list.Flag(optEntity, "Only fields that these kinds of entities are asked for: "+listOf(collector.KindNames())+". Repeatable, or separated by commas.").PlaceHolder("KIND").Strings()
	listTypes := list.Flag(optType, "Only fields of these types: "+listOf(fieldTypes())+". Repeatable, or separated by commas.").PlaceHolder("TYPE").Strings()
	listNode := list.Flag(optNode, "Sample this node, or what the other flags name, and say where each field has a value and where and why it has none.").Bool()
	listNames := list.Arg("name", "Field ids, parts of names, or patterns with * and ?; old names count, too. Without it, all fields.").Strings()
	app.Command(commandSampler, "Read samples and write them to file descriptor 3.").Hidden()

	command, err := app.Parse(args)
	if done {
		return commandLine{}, nil
	}
	if err != nil {
		return commandLine{}, err
	}
	if command == commandSampler {
		// The sampler gets its configuration from the exporter, not from here.
		return commandLine{command: command}, nil
	}
	flags := make(map[string]given, len(readers))
	for name, read := range readers {
		flags[name] = read()
	}
	again := func() (config, []string, error) { return newConfig(opts, flags, lookupIn(environ)) }
	c, warnings, err := again()
	if err != nil {
		return commandLine{}, err
	}
	line := commandLine{command: command, config: c, warnings: warnings, again: again}
	line.outputJSON = *output == outputJSON || *listOutput == outputJSON
	if command == commandFields {
		line.fields, err = newFieldQuery(*listNames, *listEntities, *listTypes, *listNode)
		err = errors.Join(err, checkNodeFlags(flags, *listNode))
	}
	return line, err
}

// checkNodeFlags says which flags of fields name a node, although none is to be
// looked at. Variables and the configuration file may: they are there for the exporter.
func checkNodeFlags(flags map[string]given, node bool) error {
	var errs []error
	for _, name := range []string{optSimulate, optHostengine} {
		if flags[name].set && !node {
			errs = append(errs, fmt.Errorf("--%s says which node to look at, and without --%s fields looks at none: add --%s, or leave it out", name, optNode, optNode))
		}
	}
	return errors.Join(errs...)
}

// checkCommand says what is wrong with the first argument that is not a flag.
func checkCommand(args []string) string {
	commands := []string{commandServe, commandOnce, commandCheckConfig, commandDoctor, commandFields}
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			continue
		}
		if arg != "help" && arg != commandSampler && !slices.Contains(commands, arg) {
			return fmt.Sprintf("unknown command %q: use %s", arg, listOf(commands))
		}
		return ""
	}
	return ""
}
