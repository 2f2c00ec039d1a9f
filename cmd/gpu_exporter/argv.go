// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gpu_exporter/collector"
)

// spelling is what one way to write a flag stands for.
type spelling struct {
	name string // the flag's name
	kind optionKind
}

// spellings gives every name and alias of the options, and of kingpin's own
// flags, without dashes.
func spellings(opts []option) map[string]spelling {
	known := map[string]spelling{
		"h":                      {name: "help"},
		"v":                      {name: "version"},
		"help":                   {name: "help"},
		"version":                {name: "version"},
		"help-long":              {name: "help-long"},
		optOutput:                {name: optOutput, kind: kindText},
		optEntity:                {name: optEntity, kind: kindList},
		optType:                  {name: optType, kind: kindList},
		optNode:                  {name: optNode},
		"help-man":               {name: "help-man"},
		"completion-bash":        {name: "completion-bash"},
		"completion-script-bash": {name: "completion-script-bash"},
		"completion-script-zsh":  {name: "completion-script-zsh"},
	}
	for _, o := range opts {
		s := spelling{name: o.name, kind: o.kind}
		known[o.name] = s
		for _, alias := range o.aliases {
			known[alias] = s
		}
	}
	return known
}

// normalizeArgs rewrites a command line in the manner of dcgm-exporter into one
// that kingpin reads. dcgm-exporter's library (urfave/cli, and below it Go's
// flag package) takes every name and alias with one dash or two, a value in the
// same argument after = or in the next one whatever it begins with, switches as
// -k=false, and of a repeated flag the last.
//
// It returns all that is wrong as one text each.
func normalizeArgs(args []string, known map[string]spelling) (out, problems []string) {
	last := make(map[string]int) // position in out of each flag that counts once
	put := func(s spelling, arg string) {
		if at, ok := last[s.name]; ok && s.kind != kindList {
			out = slices.Delete(out, at, at+1)
			for name, i := range last {
				if i > at {
					last[name] = i - 1
				}
			}
		}
		last[s.name] = len(out)
		out = append(out, arg)
	}
	var lastSwitch string // the switch in the argument before, written without a value
	for i := 0; i < len(args); i++ {
		arg := args[i]
		afterSwitch := lastSwitch
		lastSwitch = ""
		if arg == "--" {
			return append(out, args[i:]...), problems
		}
		if len(arg) < 2 || arg[0] != '-' {
			if _, err := strconv.ParseBool(arg); err == nil && afterSwitch != "" {
				problems = append(problems, fmt.Sprintf("unexpected argument %q: a switch takes its value after =, as in %s=%s", arg, afterSwitch, arg))
				continue
			}
			out = append(out, arg)
			continue
		}
		name := strings.TrimPrefix(arg[1:], "-")
		name, value, hasValue := strings.Cut(name, "=")
		shown, _, _ := strings.Cut(arg, "=")

		s, ok := known[name]
		if !ok {
			base, negated := strings.CutPrefix(name, "no-")
			if s, ok = known[base]; negated && ok && s.kind == kindSwitch && !hasValue {
				put(s, "--no-"+s.name)
				continue
			}
			problems = append(problems, fmt.Sprintf("unknown flag %s%s", shown, suggestFlag(name, known)))
			continue
		}
		if s.kind == kindSwitch {
			on := true
			if hasValue {
				var err error
				if on, err = strconv.ParseBool(value); err != nil {
					problems = append(problems, fmt.Sprintf("%s: %q is neither true nor false", shown, value))
					continue
				}
			} else {
				lastSwitch = shown
			}
			if on {
				put(s, "--"+s.name)
			} else {
				put(s, "--no-"+s.name)
			}
			continue
		}
		if !hasValue {
			i++
			if i == len(args) {
				problems = append(problems, shown+": needs a value")
				break
			}
			value = args[i]
		}
		put(s, "--"+s.name+"="+value)
	}
	return out, problems
}

// suggestFlag proposes the known name that is nearest to a mistyped one.
func suggestFlag(name string, known map[string]spelling) string {
	best, distance := "", 3 // more than two slips are another word
	for candidate := range known {
		if len(candidate) < 3 {
			continue
		}
		d := collector.EditDistance(name, candidate, distance)
		if d < distance || d == distance && best != "" && candidate < best {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean --%s?)", best)
}

func listOf(words []string) string {
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
}
