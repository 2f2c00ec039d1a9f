// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// split writes the result of splitArgs as one text: flags in the order of their names,
// and operands; or the mistakes.
func split(args []string) string {
	flags, operands, mistakes := splitArgs(args, append(new(CommandLine).settings(), new(Config).settings()...))
	if len(mistakes) > 0 {
		return "error:" + strings.Join(mistakes, "\n")
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		words = append(words, name+"="+strings.Join(flags[name], "|"))
	}
	return strings.Join(append(words, operands...), " ")
}

func TestSplitArgs(t *testing.T) {
	for _, tt := range []struct {
		name string
		args string // separated by blanks
		want string
	}{
		{"nothing", "", ""},
		{"two dashes", "--collectors=a.csv", "collectors=a.csv"},
		{"one dash", "-collectors=a.csv", "collectors=a.csv"},
		{"value in the next argument", "-collectors a.csv once", "collectors=a.csv once"},
		{"alias", "-f a.csv", "collectors=a.csv"},
		{"alias with two dashes", "--f a.csv", "collectors=a.csv"},
		{"long alias", "-rbmn", "replace-blanks-in-model-name=true"},
		{"long alias with two dashes", "--rbmn", "replace-blanks-in-model-name=true"},
		{"value that looks like a flag", "-f --weird", "collectors=--weird"},
		{"value with an equals sign", "--simulate=a=b", "simulate=a=b"},
		{"empty value", "--web-config-file=", "web-config-file="},
		{"switch", "-k", "kubernetes=true"},
		{"switch set to true", "-k=true", "kubernetes=true"},
		{"switch set to 1", "--kubernetes=1", "kubernetes=true"},
		{"switch set to false", "-k=false", "kubernetes=false"},
		{"switch set to F", "--kubernetes=F", "kubernetes=false"},
		{"switch negated", "--no-kubernetes", "kubernetes=false"},
		{"switch negated by alias", "--no-k", "kubernetes=false"},
		{"switch negated twice", "--no-kubernetes=false", "kubernetes=true"},
		{"switch whose name begins with no", "-n", "no-hostname=true"},
		{"that one set to false", "--no-hostname=false", "no-hostname=false"},
		{"that one negated", "--no-no-hostname", "no-hostname=false"},
		{"switch before a command", "-k once", "kubernetes=true once"},
		{"repeated flags", "-c 1000 --kubernetes -collect-interval=2000 --no-k", "collect-interval=1000|2000 kubernetes=true|false"},
		{"lists", "--nvidia-resource-names=a --nvidia-resource-names b", "nvidia-resource-names=a|b"},
		{"listen addresses by three names", "--web.listen-address=:1 -a :2 --address=:3", "address=:2|:3 web.listen-address=:1"},
		{"help", "-h", "help=true"},
		{"version", "-version", "version=true"},
		{"version, short", "-v", "version=true"},
		{"end of flags", "-k -- -f", "kubernetes=true -f"},
		{"end of flags among operands", "fields a -- -b -c", "fields a -b -c"},
		{"command first", "check-config -f a.csv", "collectors=a.csv check-config"},
		{"flags after operands", "fields nvlink --node temp --type gauge", "node=true type=gauge fields nvlink temp"},
		{"our own flags", "-simulate h100x8 --dcgm.library-path /opt", "dcgm.library-path=/opt simulate=h100x8"},
		{"selector of CPUs", "-p f", "cpu-devices=f"},

		{"no value", "--collectors", "error:--collectors: the value is missing"},
		{"switch with another value", "-k=maybe", `error:-k: "maybe" is neither true nor false`},
		{"switch with an empty value", "-k=", `error:-k: "" is neither true nor false`},
		{"a single dash", "- -k", "kubernetes=true -"},
		{"mistyped", "--colectors=a", "error:unknown flag --colectors: did you mean --collectors?"},
		{"mistyped with one dash", "-collector=a.csv", "error:unknown flag --collector: did you mean --collectors?"},
		{"no such flag", "--frobnicate", "error:unknown flag --frobnicate"},
		{"letters do not add up", "-ko", "error:unknown flag --ko"},
		{"only switches can be negated", "--no-collectors", "error:unknown flag --no-collectors: did you mean --collectors?"},
		{"three dashes", "---debug", "error:unknown flag ---debug: did you mean --debug?"},
		{"all mistakes", "--one -k=2 --two=x once -f", "error:unknown flag --one\n" +
			"-k: \"2\" is neither true nor false\nunknown flag --two\n-f: the value is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			if got := split(slices.Clone(args)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The mistakes of a command line as a whole.
func TestCommandLineMistakes(t *testing.T) {
	for args, want := range map[string]string{
		"--kubernetes true": `unknown command "true": use serve, once, check-config, doctor, fields or ready (a switch takes its value after =, as in --kubernetes.enabled=true)`,
		"once -k false":     `unexpected argument "false" (a switch takes its value after =, as in --kubernetes.enabled=false)`,
		"serve again":       `unexpected argument "again"`,
		"once --node":       "--node is a flag of fields, not of once",
		"check-config --entity gpu --output=json": "--output is a flag of doctor or fields, not of check-config\n--entity is a flag of fields, not of check-config",
		"ready node-1:9400":                       `"node-1:9400" is not the URL of an exporter: write one such as http://localhost:9400`,
		"ready --web.listen-address=:9401":        "--web.listen-address has no effect on ready: write only the URL of an exporter",
		"fields 203 --simulate=t4x1 -r localhost": "--simulate has no effect on fields without --node: add --node, or remove it\n" +
			"--remote-hostengine-info has no effect on fields without --node: add --node, or remove it",
	} {
		if _, err := parse(t, strings.Fields(args), nil); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", args, err, want)
		}
	}
}

// A mistyped variable of ours is a warning. Those of a Service in Kubernetes and of other
// programs are not.
func TestUnknownVariables(t *testing.T) {
	line, err := parse(t, nil, []string{
		"GPU_EXPORTER_SAMPLE_INTERVALL=10s", "GPU_EXPORTER_WEB_MAX_REQUEST=4", "GPU_EXPORTER_COLOR=red", "GPU_EXPORTER_LOGLEVEL=",
		"GPU_EXPORTER_SAMPLE_INTERVAL=20s", "GPU_EXPORTER=x", "GPU_EXPORTERS_FAMILIES=lean", "DCGM_EXPORTER_COLOR=red",
		"GPU_EXPORTER_SERVICE_HOST=10.0.0.7", "GPU_EXPORTER_SERVICE_PORT=9400", "GPU_EXPORTER_SERVICE_PORT_METRICS=9400",
		"GPU_EXPORTER_PORT=tcp://10.0.0.7:9400", "GPU_EXPORTER_PORT_9400_TCP_ADDR=10.0.0.7",
		"GPU_EXPORTER_NODE_SERVICE_HOST=10.0.0.8", "GPU_EXPORTER_NODE_PORT_9400_TCP=tcp://10.0.0.8:9400",
	})
	want := []string{
		"GPU_EXPORTER_SAMPLE_INTERVALL: no effect: unknown variable: did you mean GPU_EXPORTER_SAMPLE_INTERVAL?",
		"GPU_EXPORTER_WEB_MAX_REQUEST: no effect: unknown variable: did you mean GPU_EXPORTER_WEB_MAX_REQUESTS?",
		"GPU_EXPORTER_COLOR: no effect: unknown variable: see --help, or remove it",
	}
	if err != nil || !slices.Equal(line.Warnings, want) || line.Config.Interval != 20*time.Second {
		t.Errorf("warnings %q, interval %v, error %v", line.Warnings, line.Config.Interval, err)
	}
}

// splitArgs always ends, and takes every argument as a flag, a value or an operand.
func FuzzSplitArgs(f *testing.F) {
	f.Add("-f\na.csv\n-k=false\nonce")
	f.Add("--rbmn\n--no-n\n--\n-x")
	f.Add("-c=1\n-c\n2\n--web.listen-address\n:1")
	table := append(new(CommandLine).settings(), new(Config).settings()...)
	f.Fuzz(func(t *testing.T, joined string) {
		args := strings.Split(joined, "\n")
		flags, operands, mistakes := splitArgs(slices.Clone(args), table)
		if len(mistakes) > 0 {
			return
		}
		values := 0
		for _, v := range flags {
			values += len(v)
		}
		if values+len(operands) > len(args) || 2*values+len(operands) < len(args)-1 {
			t.Errorf("%q: %d values, %q", joined, values, operands)
		}
	})
}
