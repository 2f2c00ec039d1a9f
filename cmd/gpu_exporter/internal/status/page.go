// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageStyle string
	//go:embed page.js
	pageScript string
)

// Pages renders the status.
type Pages struct {
	Read  func() *Status // now
	Pprof bool           // link to the profiles

	parse func() (*template.Template, error)
}

// NewPages returns a renderer. The template is parsed for the first visitor.
func NewPages(read func() *Status, pprof bool) *Pages {
	return &Pages{read, pprof, sync.OnceValues(func() (*template.Template, error) {
		return template.New("page").Funcs(functions()).Parse(pageHTML)
	})}
}

// Policy returns the Content-Security-Policy of the page: only its own style and script, and
// requests to the exporter.
func Policy() string {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash(pageStyle) + "; script-src " + hash(pageScript) +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// JSON returns the status as JSON.
func (p *Pages) JSON() ([]byte, error) {
	text, err := json.Marshal(p.Read())
	return append(text, '\n'), err
}

// HTML returns the status as a page.
func (p *Pages) HTML() ([]byte, error) {
	page, err := p.parse()
	if err != nil {
		return nil, fmt.Errorf("parsing the page: %w", err)
	}
	var b bytes.Buffer
	s := p.Read()
	err = page.Execute(&b, struct {
		*Status
		Style   template.CSS
		Script  template.JS
		Refresh int // seconds
		Pprof   bool
	}{s, template.CSS(pageStyle), template.JS(pageScript), refreshSeconds(s.Sample.Interval), p.Pprof})
	return b.Bytes(), err
}

// refreshSeconds returns the time between refreshes: that between samples, from 2 s to 30 s.
func refreshSeconds(interval float64) int { return int(min(max(math.Ceil(interval), 2), 30)) }

func functions() template.FuncMap {
	return template.FuncMap{
		"words":    State.words,
		"ratio":    func(v Value) figure { return v.figure(100, "%.0f", " %") },
		"celsius":  func(v Value) figure { return v.figure(1, "%.0f", " °C") },
		"watts":    func(v Value) figure { return v.figure(1, "%.0f", " W") },
		"gib":      func(v Value) figure { return v.figure(1./(1<<30), "%.1f", " GiB") },
		"bar":      bar,
		"full":     func() Value { return Value{Value: new(1.0)} },
		"duration": duration,
		"ago":      ago,
		"since":    func(now time.Time, t *time.Time) string { return ago(new(now.Sub(*t).Seconds())) },
		"clock":    func(t time.Time) string { return t.Format("2006-01-02 15:04:05 UTC") },
		"join":     func(list []string) string { return strings.Join(list, ", ") },
		"sentence": func(text string) string { return strings.TrimRight(text, ".") + "." },
		"short":    func(revision string) string { return revision[:min(len(revision), 12)] },
		"plural":   plural,
		"problems": problemsWithoutXIDs,
		"xidClass": xidClass,
		"groups":   groups,
		"changed":  changed,
	}
}

// figure is a value as text. Its class distinguishes a number, a value that the device does
// not have, and one that is not known now.
type figure struct{ Text, Class, Title string }

// Classes of figures.
const (
	classNumber  = "num"
	classAbsent  = "absent"
	classUnknown = "unk"
)

func (v Value) figure(factor float64, format, unit string) figure {
	if v.Value != nil {
		return figure{fmt.Sprintf(format, *v.Value*factor) + unit, classNumber, ""}
	}
	switch v.Missing {
	case notRead:
		return figure{"not read", classAbsent, "The counters do not include the field."}
	case perInstance:
		return figure{"per instance", classAbsent, "Each MIG instance has its own value."}
	case "not_supported", "excluded":
		return figure{strings.ReplaceAll(v.Missing, "_", " "), classAbsent, ""}
	}
	return figure{"unknown", classUnknown, "Reason: " + v.Missing}
}

// bar returns the width of a bar of 100, or -1 without one.
func bar(v, of Value) int {
	if v.Value == nil || of.Value == nil || *of.Value <= 0 {
		return -1
	}
	return int(math.Round(100 * min(max(*v.Value / *of.Value, 0), 1)))
}

// duration returns a time in seconds in words, such as 3 min.
func duration(seconds float64) string {
	switch d := time.Duration(max(seconds, 0) * float64(time.Second)); {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f d", d.Hours()/24)
	}
}

func ago(seconds *float64) string {
	if seconds == nil {
		return "never"
	}
	return duration(*seconds) + " ago"
}

// problemsWithoutXIDs returns the problems of a GPU except those of XIDs, which have lines of
// their own.
func problemsWithoutXIDs(g GPU, now time.Time) []Problem {
	var all []Problem
next:
	for _, p := range g.Problems {
		for i := range g.XIDs {
			if of, ok := xidProblem(&g.XIDs[i], now); ok && of == p {
				continue next
			}
		}
		all = append(all, p)
	}
	return all
}

// xidClass returns the state that an XID causes, or history.
func xidClass(x XID, now time.Time) string {
	if p, ok := xidProblem(&x, now); ok {
		return string(p.State)
	}
	return "history"
}

// missingGroup is the fields that the same number of entities miss for the same reason.
type missingGroup struct {
	Reason, Kind string
	Entities, Of int
	Fields       []string
}

// groups returns the missing values by reason: those that may return, or the lasting ones.
func groups(all []Missing, lasting bool) []missingGroup {
	var list []missingGroup
	for _, m := range all {
		if m.Lasting != lasting {
			continue
		}
		at := slices.IndexFunc(list, func(g missingGroup) bool {
			return g.Reason == m.Reason && g.Kind == m.Kind && g.Entities == m.Entities && g.Of == m.Of
		})
		if at < 0 {
			at, list = len(list), append(list, missingGroup{m.Reason, m.Kind, m.Entities, m.Of, nil})
		}
		list[at].Fields = append(list[at].Fields, m.Field)
	}
	return list
}

// changed returns the settings that are not the defaults.
func changed(all []Setting) []Setting {
	var list []Setting
	for _, s := range all {
		if s.Changed {
			list = append(list, s)
		}
	}
	return list
}
