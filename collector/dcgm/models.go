// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dcgm

import (
	"fmt"
	"regexp"

	"gpu_exporter/collector/model"
	"gpu_exporter/collector/wire"
)

// modelRules exclude fields from GPUs of some models.
type modelRules []modelRule

type modelRule struct {
	field model.FieldID
	match *regexp.Regexp
	only  bool
}

func compileModelRules(rules []wire.ModelRule) (modelRules, error) {
	var all modelRules
	for _, r := range rules {
		match, err := wire.ModelExpression(r.Match)
		if err != nil {
			return nil, fmt.Errorf("reading the rule for models %q: %w", r.Match, err)
		}
		all = append(all, modelRule{r.Field, match, r.Only})
	}
	return all, nil
}

// exclude reports whether the field is not read on GPUs of the model.
func (rules modelRules) exclude(field model.FieldID, model string) bool {
	limited, allowed := false, false
	for _, r := range rules {
		if r.field != field {
			continue
		}
		matches := r.match.MatchString(model)
		switch {
		case r.only:
			limited, allowed = true, allowed || matches
		case matches:
			return true
		}
	}
	return limited && !allowed
}
