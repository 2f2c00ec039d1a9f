// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"

	"gpu_exporter/collector"
)

// value is what a flag comes to.
type value struct {
	text string
	list []string
	set  bool   // by flag, variable or file, as opposed to its default
	from string // what to name in a message: the flag, the variable, or the place in the file
	rank rank
}

// rank says who set a value. The higher one wins.
type rank uint8

const (
	byDefault rank = iota
	byFile
	byVariable
	byFlag
)

// resolver collects what is wrong while values are read.
type resolver struct {
	values   map[string]value
	file     *configFile // nil: none was given, or it cannot be read
	mistaken bool        // there is something wrong in the file
	problems []string
	warnings []string
}

func (r *resolver) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *resolver) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

func (r *resolver) resolve(o option, g given, lookupEnv func(string) (string, bool)) value {
	v := value{text: o.def, from: "--" + o.name}
	if o.kind == kindSwitch && v.text == "" {
		v.text = "false"
	}
	unset := v.text
	env := ""
	if o.env != "" {
		env, _ = lookupEnv(o.env)
	}
	file, inFile := r.file.value(o.name)
	switch {
	case g.set:
		v.text, v.list, v.set, v.rank = g.text, g.list, true, byFlag
	case env != "":
		v.text, v.set, v.from, v.rank = env, true, o.env, byVariable
		switch o.kind {
		case kindSwitch:
			on, err := strconv.ParseBool(env)
			if err != nil {
				r.problem("%s: %q is neither true nor false", o.env, env)
			}
			v.text = strconv.FormatBool(on)
		case kindList:
			v.list = []string{env}
		}
	case inFile:
		v.text, v.list, v.set, v.rank = file.text, file.list, true, byFile
		v.from = fmt.Sprintf("%s:%d: %s", r.file.path, file.line, o.name)
	}
	// What dcgm-exporter does by default, or empty, asks for nothing: charts and unit
	// files write it out.
	if o.missing && v.set && v.text != unset && v.text != "" {
		r.problems = append(r.problems, o.notHere(v.from))
	}
	return v
}

// on gives a switch.
func (r *resolver) on(name string) bool { return r.values[name].text == "true" }

// path gives a text that must not be empty if it is set.
func (r *resolver) path(name string) string {
	v := r.values[name]
	if v.set && strings.TrimSpace(v.text) == "" {
		r.problem("%s: it is empty: give a value, or leave the flag out", v.from)
	}
	return v.text
}

// dockerSocket is the path of a Docker engine's socket. dcgm-exporter's flag may be
// empty, which is its default.
func (r *resolver) dockerSocket() string {
	if v := r.either(optDockerSocket, optDockerSocket2); v.from == r.values[optDockerSocket2].from {
		return v.text
	}
	return r.path(optDockerSocket)
}

func (r *resolver) oneOf(name string, allowed ...string) string {
	v := r.values[name]
	if !slices.Contains(allowed, v.text) {
		r.problem("%s: %q is not known: use %s", v.from, v.text, listOf(allowed))
	}
	return v.text
}

// either gives the value of two flags that mean the same.
func (r *resolver) either(name, alias string) value {
	v, a := r.values[name], r.values[alias]
	switch {
	case a.rank > v.rank:
		return a
	case a.set && a.rank == v.rank && a.text != v.text:
		r.problem("%s and %s mean the same and differ (%q and %q): give one of them", v.from, a.from, v.text, a.text)
	}
	return v
}

func (r *resolver) interval() time.Duration {
	v := r.values[optInterval]
	d, err := parseInterval(v.text)
	switch {
	case err != nil:
		r.problem("%s: %v", v.from, err)
	case d < minInterval:
		r.problem("%s: %v is too short: DCGM cannot keep up below %v (a bare number is in milliseconds, for seconds write 5s)", v.from, d, minInterval)
	case d < advisedInterval:
		r.warn("%s: %v is shorter than %v: it costs CPU time on the node and Prometheus seldom asks that often", v.from, d, advisedInterval)
	}
	return d
}

// parseInterval reads a bare number as milliseconds, as dcgm-exporter does, and
// a duration as Go or Prometheus writes it.
func parseInterval(s string) (time.Duration, error) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms >= 0 {
		if ms > math.MaxInt64/int64(time.Millisecond) {
			return 0, tooLarge(s, "5s")
		}
		return time.Duration(ms) * time.Millisecond, nil
	}
	d, err := anyDuration(s)
	switch {
	case err == nil:
		return d, nil
	case isTooLarge(s) || isNumber.MatchString(s):
		return 0, tooLarge(s, "5s")
	}
	return 0, fmt.Errorf("%q is neither a number of milliseconds nor a duration such as 5s", s)
}

// parseDuration reads a duration as Go or Prometheus writes it. The example is for the
// error.
func parseDuration(s, example string) (time.Duration, error) {
	d, err := anyDuration(s)
	switch {
	case err == nil:
		return d, nil
	case isTooLarge(s):
		return 0, tooLarge(s, example)
	}
	return 0, fmt.Errorf("%q is not a duration: write one such as %s", s, example)
}

func anyDuration(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	d, err := model.ParseDuration(s)
	return time.Duration(d), err
}

var (
	isNumber = regexp.MustCompile("^[0-9]+$")
	digits   = regexp.MustCompile("[0-9]+")
)

// isTooLarge says whether a text that is no duration would be one with smaller numbers.
func isTooLarge(s string) bool {
	_, err := anyDuration(digits.ReplaceAllString(s, "1"))
	return err == nil && !strings.HasPrefix(s, "-")
}

func tooLarge(s, example string) error {
	return fmt.Errorf("%q is too large: write a duration such as %s", s, example)
}

// window gives a time to look back.
func (r *resolver) window(name string) time.Duration {
	v := r.values[name]
	d, err := parseInterval(v.text)
	switch {
	case err != nil:
		r.problem("%s: %v", v.from, err)
	case d < minWindow || d > maxWindow:
		r.problem("%s: %v is not between %v and %v (a bare number is in milliseconds)", v.from, d, minWindow, maxWindow)
	}
	return d
}

// healthInterval is 0 if no health checks are to be made.
func (r *resolver) healthInterval() time.Duration {
	v := r.values[optHealthInterval]
	d, err := parseInterval(v.text)
	switch {
	case err != nil:
		r.problem("%s: %v", v.from, err)
	case d < minHealthInterval:
		r.problem("%s: %v is shorter than %v: a check looks at minutes, and costs the engine time", v.from, d, minHealthInterval)
	}
	if !r.on(optHealthCheck) {
		return 0
	}
	return d
}

func (r *resolver) resolution(interval time.Duration) time.Duration {
	v := r.values[optResolution]
	d, err := parseDuration(v.text, "1s")
	switch {
	case err != nil:
		r.problem("%s: %v", v.from, err)
	case d < minInterval:
		r.problem("%s: %v is too short: DCGM cannot keep up below %v", v.from, d, minInterval)
	case v.set: // the default is for any interval
		r.notLonger(v.from, d, interval)
	}
	return d
}

// notLonger finds a resolution, given as from says, that is longer than the interval.
func (r *resolver) notLonger(from string, resolution, interval time.Duration) {
	if resolution > interval && interval >= minInterval && r.known(optInterval) {
		r.problem("%s: %v is longer than the %v between samples (%s), with each of which the field is looked at: make it shorter, or leave it out",
			from, resolution, interval, r.values[optInterval].from)
	}
}

func (r *resolver) maxAge(interval time.Duration) time.Duration {
	v := r.values[optMaxAge]
	if !v.set {
		if interval > math.MaxInt64/maxAgeIntervals {
			return interval
		}
		return max(maxAgeIntervals*interval, minDefaultMaxAge)
	}
	d, err := parseDuration(v.text, "30s")
	switch {
	case err != nil:
		r.problem("%s: %v", v.from, err)
	case d <= 0:
		r.problem("%s: %v is no age that a sample can have: write a duration such as 30s", v.from, d)
	case d < interval && r.known(optInterval):
		r.problem("%s: %v is shorter than the interval of %v: every sample would be too old before the next one comes", v.from, d, interval)
	}
	return d
}

func (r *resolver) devices(name string) string {
	v := r.values[name]
	if _, err := collector.ParseSelector(v.text); err != nil {
		r.problem("%s: %v", v.from, err)
	}
	return v.text
}

func (r *resolver) hostengine() string {
	v := r.values[optHostengine]
	if !v.set {
		return ""
	}
	if _, err := collector.ParseHostengine(v.text); err != nil {
		r.problem("%s: %v", v.from, err)
	}
	return v.text
}

func (r *resolver) dcgmLogLevel() string {
	v := r.values["dcgm-log-level"]
	level := strings.ToUpper(v.text)
	levels := []string{"NONE", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "VERB"}
	if !slices.Contains(levels, level) {
		r.problem("%s: %q is not a level of DCGM's log: use %s", v.from, v.text, listOf(levels))
	}
	if !r.on("enable-dcgm-log") {
		return "NONE"
	}
	return level
}

// items gives a list whose values may be separated by commas, each once.
func (r *resolver) items(name string) []string {
	var items []string
	for _, text := range r.values[name].list {
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" && !slices.Contains(items, item) {
				items = append(items, item)
			}
		}
	}
	return items
}

// expressions gives a list of regular expressions.
func (r *resolver) expressions(name string, list []string) []string {
	for _, e := range list {
		if _, err := regexp.Compile(e); err != nil {
			r.problem("%s: %q is not a regular expression: %v", r.values[name].from, e, err)
		}
	}
	return list
}

// needsKubernetes warns of what has no effect without --kubernetes.
func (r *resolver) needsKubernetes(lookupEnv func(string) (string, bool)) {
	if r.on("kubernetes") {
		if _, inPod := lookupEnv("KUBERNETES_SERVICE_HOST"); inPod && !r.values[optNodeName].set {
			r.warn("NODE_NAME is not set: the name of the pod is taken for that of the node; set it from spec.nodeName")
		}
		return
	}
	for _, name := range []string{optVirtualGPUs, optDRA, optPodLabels, optPodLabelAllow, optAnnotations, optPodLabelsForm, optPodUID,
		optWorkload, optMetadataSource, optKubeconfig, optPodsSocket, optPodLogs} {
		if v := r.values[name]; v.set && v.text != "false" {
			r.warn("%s: without effect unless --kubernetes is given", v.from)
		}
	}
}

// checkCompatible looks at what is accepted only since dcgm-exporter has it, and says
// what of it has no effect. Its defaults, which charts may write out, pass in silence.
func (r *resolver) checkCompatible() {
	if v := r.values[optBindWatch]; v.set && v.text == "false" {
		r.warn("%s: cannot be switched off: GPUs that come and go are noticed within one interval", v.from)
	}
	if v := r.values[optOwnMetrics]; v.set && v.text == "false" {
		r.warn("%s: cannot be switched off: metrics of the exporter itself are always served", v.from)
	}
	r.inert(optBindInterval, "1s", time.Second, "GPUs that come and go are noticed within one --"+optInterval)
	r.inert(optReadTimeout, "10s", defaultTimeouts().read, "a request must have come after "+defaultTimeouts().read.String())
	r.inert(optWriteTimeout, "30s", defaultTimeouts().write, "an answer must have been taken after "+defaultTimeouts().write.String())
	r.inert(optKeepAge, "10m", defaultKeepAge, "DCGM keeps samples for as long as they take to be read")
	if v := r.values[optKeepSamples]; v.set && v.text != "0" {
		if _, err := strconv.ParseUint(v.text, 10, 63); err != nil {
			r.problem("%s: %q is not a number of samples: leave it out", v.from, v.text)
		} else {
			r.warn("%s: without effect: DCGM keeps samples for as long as they take to be read", v.from)
		}
	}
}

// defaultKeepAge is dcgm-exporter's.
const defaultKeepAge = 10 * time.Minute

// inert takes a duration that changes nothing, as why says, and warns unless it is the
// one that is silent.
func (r *resolver) inert(name, example string, silent time.Duration, why string) {
	v := r.values[name]
	if !v.set {
		return
	}
	switch d, err := parseDuration(v.text, example); {
	case err != nil:
		r.problem("%s: %v, or leave it out", v.from, err)
	case d != silent:
		r.warn("%s: without effect: %s", v.from, why)
	}
}

func (r *resolver) listenAddresses() []string {
	addresses, a := r.values[optListenAddress], r.values[optAddress]
	list, from := addresses.list, addresses.from
	switch {
	case a.set && a.rank == addresses.rank:
		if !slices.Equal(addresses.list, []string{a.text}) {
			r.problem("%s and %s mean the same and differ (%q and %q): give one of them",
				addresses.from, a.from, strings.Join(addresses.list, ","), a.text)
		}
	case a.rank > addresses.rank:
		list, from = []string{a.text}, a.from
	case !addresses.set:
		list = []string{defaultListenAddress}
	}
	for _, address := range list {
		if err := checkListenAddress(address); err != nil {
			r.problem("%s: %v", from, err)
		}
	}
	return list
}

func checkListenAddress(address string) error {
	hostPort, isVsock := strings.CutPrefix(address, "vsock://")
	_, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on: write HOST:PORT or :PORT", address)
	}
	if isVsock {
		if _, err := strconv.ParseUint(port, 10, 32); err != nil {
			return fmt.Errorf("%q: %q is not a vsock port", address, port)
		}
		return nil
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q: %q is not a port", address, port)
	}
	return nil
}

func (r *resolver) maxRequests() int {
	v := r.either(optMaxRequests, optMaxRequests2)
	n, err := strconv.Atoi(v.text)
	switch {
	case isNumber.MatchString(v.text) && err != nil:
		r.problem("%s: %q is too large: write a number such as 40", v.from, v.text)
	case err != nil || n < 1:
		r.problem("%s: %q is not a number of scrapes: at least 1 must be allowed", v.from, v.text)
	}
	return n
}

func (r *resolver) logLevel() string {
	level, debug := r.values[optLogLevel], r.values[optDebug]
	if debug.text == "true" {
		if level.rank == debug.rank && level.text != "debug" {
			r.problem("%s=%s and %s contradict each other: give one of them", level.from, level.text, debug.from)
		}
		if debug.rank >= level.rank {
			return "debug"
		}
	}
	return r.oneOf(optLogLevel, promslog.LevelFlagOptions...)
}

func (r *resolver) logFormat() string {
	ours, theirs := r.values[optLogFormat], r.values[optLogFormat2]
	if theirs.rank < ours.rank || !theirs.set {
		return r.oneOf(optLogFormat, promslog.FormatFlagOptions...)
	}
	format := map[string]string{"text": "logfmt", "json": "json"}[theirs.text]
	switch {
	case format == "":
		r.problem("%s: %q is not known: use text or json", theirs.from, theirs.text)
	case theirs.rank > ours.rank:
		return format
	case ours.text != format:
		r.problem("%s=%s and %s=%s contradict each other: give one of them", ours.from, ours.text, theirs.from, theirs.text)
	}
	return r.oneOf(optLogFormat, promslog.FormatFlagOptions...)
}

// lookupIn gives access to an environment in the form of os.Environ.
func lookupIn(environ []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		// The last one counts, as for a process that is started with it.
		for _, entry := range slices.Backward(environ) {
			if k, v, ok := strings.Cut(entry, "="); ok && k == name {
				return v, true
			}
		}
		return "", false
	}
}
