// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
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
		{Ready, " [URL]", "Query a running exporter, print whether its GPUs answer, and exit with 1 if they do not. The default is " + defaultExporter + "."},
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
	sections := []subject{{commandSubject, "Flags of the command"}}
	if name != Ready { // the other exporter has a configuration
		sections = append(sections, subjects()...)
	}
	p("\n%s", wrap("A flag has one dash or two. A flag wins over its environment variable, both win over the names of dcgm-exporter, and all win over the configuration file. A variable that is empty counts as unset.", ""))
	for _, section := range sections {
		title := "\n" + section.title + ":\n"
		for _, s := range table {
			if s.subject() == section.name && (s.commands == nil || slices.Contains(s.commands, name)) {
				p("%s  %s\n%s", title, s.usage(), wrap(s.details(), "      "))
				title = ""
			}
		}
	}
	if name == Ready {
		return
	}
	p("\nNames of dcgm-exporter (FLAGS.md has their variables, and the flags that have no effect here):\n")
	for _, s := range table {
		if s.means != "" && s.name != "" {
			p("  %-40s --%s\n", s.spellings(), s.means)
		}
	}
}

// spellings returns the names of a flag, such as "-c, --collect-interval".
func (s *setting) spellings() string {
	names := s.names()
	for i, name := range names {
		names[i] = dashed(name)
	}
	return strings.Join(names, ", ")
}

// usage returns the names of a flag with its value, such as "--counters.file=FILE".
func (s *setting) usage() string {
	if s.kind == toggle {
		return s.spellings()
	}
	return s.spellings() + "=" + s.arg
}

// details returns the help of a flag with its default and its variable.
func (s *setting) details() string {
	text := s.help
	if s.def != "" {
		text += " Default: " + s.def + "."
	}
	if s.env != "" {
		text += " $" + s.env
	}
	return text
}

// wrap breaks a text into indented lines of at most 100 characters.
func wrap(text, indent string) string {
	var b strings.Builder
	for line := range Wrapped(text, 100-len(indent)) {
		b.WriteString(indent + line + "\n")
	}
	return b.String()
}

// Wrapped yields the text in lines of at most width columns. A longer word has a line of
// its own.
func Wrapped(text string, width int) iter.Seq[string] {
	return func(yield func(string) bool) {
		line := ""
		for word := range strings.FieldsSeq(text) {
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
				line += " " + word
			case !yield(line):
				return
			default:
				line = word
			}
		}
		if line != "" {
			yield(line)
		}
	}
}
