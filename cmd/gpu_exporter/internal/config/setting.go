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

	"github.com/prometheus/common/model"
)

// setting is one flag, with its environment variable and its key in the configuration
// file.
type setting struct {
	name    string // the key in the configuration file, too
	aliases string // more names, separated by blanks
	env     string // variable; empty: none
	arg     string // placeholder of the value in --help
	def     string // default
	help    string
	target  // the field that it sets

	section string // of --help and FLAGS.md
	live    bool   // a reload replaces it
	// commands are the only ones that have this flag; empty: all. These flags are no keys
	// of the configuration file.
	commands []string
	// inert is the reason why a flag of dcgm-exporter has no effect. Setting it to anything but
	// the default is a warning.
	inert string
	// instead is the replacement of a flag of dcgm-exporter that is not available. Setting
	// it to anything but the default is an error.
	instead string
	// needs is a flag without which this one has no effect.
	needs string

	rank rank
	from string     // the flag, variable, or place in the file that set the value
	file *fileValue // nil: not in the configuration file
}

// rank is the source of a value. The highest one wins.
type rank uint8

const (
	byDefault rank = iota
	byFile
	byVariable
	byFlag
)

func (s *setting) set() bool { return s.rank > byDefault }

func (s *setting) names() []string { return append([]string{s.name}, strings.Fields(s.aliases)...) }

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
	t := one(field, func(s string) (bool, error) {
		v, err := strconv.ParseBool(s)
		if err != nil {
			err = fmt.Errorf("%q is neither true nor false", s)
		}
		return v, err
	})
	t.kind = toggle
	return t
}

// optional takes any text.
func optional(field *string) target { return checked(field, anything) }

// text takes a text that is not empty.
func text(field *string) target {
	return checked(field, func(s string) error {
		if strings.TrimSpace(s) == "" {
			return errors.New("the value is empty: write one, or remove the flag")
		}
		return nil
	})
}

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
	return one(field, func(s string) (time.Duration, error) { return parseDuration(s, lowest, highest) })
}

// parseDuration reads a duration as Go or Prometheus write it. A bare number is in
// milliseconds, as in dcgm-exporter.
func parseDuration(s string, lowest, highest time.Duration) (time.Duration, error) {
	withUnit := s
	if _, err := strconv.ParseUint(s, 10, 64); err == nil {
		withUnit += "ms"
	}
	d, err := time.ParseDuration(withUnit)
	if err != nil {
		var long model.Duration
		long, err = model.ParseDuration(withUnit)
		d = time.Duration(long)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration from %v to %v: write one such as 5s (a bare number is in milliseconds)", s, lowest, highest)
	case d < lowest || d > highest:
		return 0, fmt.Errorf("%v is not between %v and %v (a bare number is in milliseconds: for seconds write 5s)", d, lowest, highest)
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

func anything(string) error { return nil }

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
