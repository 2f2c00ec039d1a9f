// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"regexp"
)

// ParseAllowlist makes a predicate of regular expressions: it holds for keys
// that any of them matches. They are not anchored and are applied to the key as
// it is in the pod, with its prefix, as dcgm-exporter does. Without expressions
// it holds for all keys. The error names each expression that is none.
func ParseAllowlist(expressions []string) (func(key string) bool, error) {
	if len(expressions) == 0 {
		return func(string) bool { return true }, nil
	}
	var list []*regexp.Regexp
	var errs []error
	for i, e := range expressions {
		if e == "" { // matches everything, which is hardly what a list is for
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
