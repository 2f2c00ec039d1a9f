// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// command is a command, as --help describes it.
type command struct{ name, operands, help string }

func commands() []command {
	return []command{
		{Serve, "", "Serve metrics over HTTP. This is the default."},
		{Once, "", "Take one sample, print the metrics, and exit."},
		{CheckConfig, "", "Check flags, environment and files, print what would be exported, and exit."},
		{Doctor, "", "Examine this node, print what works and why something does not, and exit with 1 if anything that was asked for is broken."},
		{Fields, " [NAME...]", "List the DCGM fields whose id or name matches one of the arguments. A name may be a part, or a pattern with * and ?. Old names match, too."},
	}
}

// writeHelp prints the help of a command, or of the program.
func writeHelp(w io.Writer, name string, table []*setting) {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // for people to read
	if i := slices.IndexFunc(commands(), func(c command) bool { return c.name == name && name != Serve }); i >= 0 {
		c := commands()[i]
		p("usage: %s %s [FLAG...]%s\n\n%s", ProgramName, c.name, c.operands, wrap(c.help, ""))
	} else {
		p("usage: %s [COMMAND] [FLAG...]\n\nPrometheus exporter for NVIDIA GPUs.\n\nCommands:\n", ProgramName)
		for _, c := range commands() {
			p("  %s%s\n%s", c.name, c.operands, wrap(c.help, "      "))
		}
	}
	p("\n%s", wrap("A flag has one dash or two. A flag wins over its environment variable, the variable over the configuration file. A variable that is empty counts as unset.", ""))
	for _, section := range sections() {
		title := section
		for _, s := range table {
			if s.section != section || s.instead != "" || s.commands != nil && !slices.Contains(s.commands, name) {
				continue
			}
			if title != "" {
				p("\n%s:\n", title)
				title = ""
			}
			p("  %s\n%s", s.usage(), wrap(s.help, "      "))
		}
	}
}

// usage returns the names of a flag with its value, such as "-f, --collectors=FILE".
func (s *setting) usage() string {
	var names []string
	for _, alias := range strings.Fields(s.aliases) {
		names = append(names, dashed(alias))
	}
	value := s.arg
	if s.def != "" {
		value = s.def
	}
	usage := strings.Join(append(names, "--"+s.name), ", ")
	if s.kind != toggle || s.def == "true" {
		usage += "=" + value
	}
	if s.env != "" {
		usage += " ($" + s.env + ")"
	}
	return usage
}

// wrap breaks a text into indented lines of at most 100 characters.
func wrap(text, indent string) string {
	var b strings.Builder
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) >= 100 {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent
		}
		line += word + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}
