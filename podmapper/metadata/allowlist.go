// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"regexp"
)

// ParseAllowlist compiles regular expressions into a predicate that accepts a key if
// any expression matches it. As in dcgm-exporter, expressions are not anchored and
// match the key of the pod with its prefix. An empty list accepts all keys. The error
// names each invalid expression.
func ParseAllowlist(expressions []string) (func(key string) bool, error) {
	if len(expressions) == 0 {
		return func(string) bool { return true }, nil
	}
	var list []*regexp.Regexp
	var errs []error
	for i, e := range expressions {
		if e == "" { // it matches every key, which is hardly the purpose of a list
			errs = append(errs, fmt.Errorf("expression %d is empty: remove it, or write .* to allow every key", i+1))
			continue
		}
		re, err := regexp.Compile(e)
		if err != nil {
			errs = append(errs, fmt.Errorf("expression %d, %q: %w", i+1, e, err))
			continue
		}
		list = append(list, re)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return func(key string) bool {
		for _, re := range list {
			if re.MatchString(key) {
				return true
			}
		}
		return false
	}, nil
}
