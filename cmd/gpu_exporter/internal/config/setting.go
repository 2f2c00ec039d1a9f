// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpu_exporter/collector/metrics/definition"

	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"
)

// setting is one flag, with its environment variable and its key in the configuration
// file.
type setting struct {
	name    string // subject.key: the path in the configuration file, too
	aliases string // shorter names, separated by blanks
	env     string // variable; empty: none
	arg     string // placeholder of the value in --help
	def     string // default
	help    string
	target  // the field that it sets

	// commands are the only ones that have this flag; empty: all. These flags are no keys
	// of the configuration file.
	commands []string
	// needs are the flags, separated by blanks, one of which this one needs for an effect.
	needs string
	// compat is the flag of dcgm-exporter that sets this one, too; nil: none.
	compat *setting

	// A flag of dcgm-exporter has one of the next three. means is our flag that it sets, or
	// with = the value to which true sets it.
	means string
	// inert is the reason why it has no effect. Setting it to anything but the default is a
	// warning.
	inert string
	// instead is its replacement. Setting it to anything but the default is an error.
	instead string
	// convert returns our form of a value; empty: it sets nothing.
	convert func(string) string

	from string       // the flag, variable, or place in the file that set the value
	set  bool         // not by default
	line int          // of the configuration file; 0: not in it
	file []*yaml.Node // its values there
}

func (s *setting) names() []string { return strings.Fields(s.aliases + " " + s.name) }

// isOwn reports whether the flag is not one of dcgm-exporter.
func (s *setting) isOwn() bool { return s.means == "" && s.inert == "" && s.instead == "" }

// subject returns the name of the flag's group in subjects.
func (s *setting) subject() string {
	switch subject, _, found := strings.Cut(s.name, "."); {
	case s.env == "":
		return commandSubject
	case !s.isOwn():
		return compatSubject
	case found:
		return subject
	}
	return ""
}

// target parses values into a field of the configuration.
type target struct {
	kind  kind
	parse func(values []string) error
	value func() string // of the field
}

type kind uint8

const (
	single     kind = iota // takes one value; the last one wins
	toggle                 // true or false; the value may be omitted
	repeatable             // collects values
)

// one is a target that takes a single value.
func one[T any](field *T, parse func(string) (T, error)) target {
	return target{
		parse: func(values []string) error {
			v, err := parse(values[len(values)-1])
			if err == nil {
				*field = v
			}
			return err
		},
		value: func() string { return fmt.Sprint(*field) },
	}
}

func boolean(field *bool) target {
	t := one(field, parseBool)
	t.kind = toggle
	return t
}

func parseBool(s string) (bool, error) {
	on, err := strconv.ParseBool(s)
	if err != nil {
		err = fmt.Errorf("%q is neither true nor false", s)
	}
	return on, err
}

// optional takes any text.
func optional(field *string) target { return checked(field, anything) }

// text takes a text that is not empty.
func text(field *string) target { return checked(field, notEmpty) }

// checked takes a text that check accepts.
func checked(field *string, check func(string) error) target {
	return one(field, func(s string) (string, error) { return s, check(s) })
}

func oneOf(field *string, allowed ...string) target {
	return checked(field, func(s string) error { return contained(s, allowed...) })
}

func number(field *int, lowest, highest int) target {
	return one(field, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < lowest || n > highest {
			return 0, fmt.Errorf("%q is not a number from %d to %d", s, lowest, highest)
		}
		return n, nil
	})
}

func duration(field *time.Duration, lowest, highest time.Duration) target {
	return one(field, func(s string) (time.Duration, error) { return ParseDuration(s, lowest, highest) })
}

// ParseDuration reads a duration in the form of Go or Prometheus, such as 1h30m or 1d.
func ParseDuration(s string, lowest, highest time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		var long model.Duration
		long, err = model.ParseDuration(s)
		d = time.Duration(long)
	}
	switch _, isFloat := strconv.ParseFloat(s, 64); {
	case err != nil && isFloat == nil:
		return 0, fmt.Errorf("%s has no unit: write %ss or %sms", s, s, s)
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration from %v to %v: write one such as 5s", s, lowest, highest)
	case d < lowest || d > highest:
		return 0, fmt.Errorf("%v is not between %v and %v: write one such as 5s", d, lowest, highest)
	}
	return d, nil
}

// list collects values, each once. Commas separate values, too.
func list(field *[]string) target { return values(field, true, anything) }

// values collects values that check accepts, each once.
func values(field *[]string, commas bool, check func(string) error) target {
	return target{
		kind: repeatable,
		parse: func(items []string) error {
			*field = nil
			if commas {
				items = strings.Split(strings.Join(items, ","), ",")
			}
			for _, item := range items {
				item = strings.TrimSpace(item)
				if item == "" && commas || slices.Contains(*field, item) {
					continue
				}
				if err := check(item); err != nil {
					return err
				}
				*field = append(*field, item)
			}
			return nil
		},
		value: func() string { return strings.Join(*field, ",") },
	}
}

// selection collects groups of families. Commas separate them, too.
func selection(field *definition.Selection) target {
	return target{
		kind: repeatable,
		parse: func(items []string) (err error) {
			*field, err = definition.ParseSelection(strings.Join(items, ","))
			return err
		},
		value: func() string { return field.String() },
	}
}

func anything(string) error { return nil }

func notEmpty(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("the value is empty: write one, or remove the flag")
	}
	return nil
}

func contained(s string, allowed ...string) error {
	if !slices.Contains(allowed, s) {
		return fmt.Errorf("%q is unknown: use %s", s, ListOf(allowed))
	}
	return nil
}

// expression checks a regular expression.
func expression(s string) error {
	if _, err := regexp.Compile(s); err != nil {
		return fmt.Errorf("%q is not a regular expression: %w", s, err)
	}
	return nil
}
