// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gpu_exporter/collector/goldentest"
)

const packageDir = "../../../../deploy/package/"

// The man page and the completions of the shells have every command, and every flag but
// those of dcgm-exporter, which are for existing command lines.
func TestManPage(t *testing.T) {
	t.Parallel()
	var flags []*setting
	for _, s := range append(new(CommandLine).settings(), new(Config).settings()...) {
		if s.isOwn() {
			flags = append(flags, s)
		}
	}
	goldentest.File(t, packageDir+"gpu_exporter.1", manPage(flags), "docs")
	goldentest.File(t, packageDir+"completions/gpu_exporter.bash", bashCompletion(flags), "docs")
	goldentest.File(t, packageDir+"completions/_gpu_exporter", zshCompletion(flags), "docs")
	goldentest.File(t, packageDir+"completions/gpu_exporter.fish", fishCompletion(flags), "docs")
}

// header returns the first lines of a generated file.
func header(comment string) string {
	return strings.ReplaceAll("# Copyright The gpu_exporter Authors\n# SPDX-License-Identifier: Apache-2.0\n# Written by `make docs`: change the code, not this file.\n", "#", comment)
}

// manPage returns a page in the language of man(7).
func manPage(flags []*setting) string {
	escape := strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`)
	var b strings.Builder
	b.WriteString(header(`.\"`) + ".TH GPU_EXPORTER 1 \"\" gpu_exporter\n.ad l\n")
	section := func(title string, paragraphs ...string) {
		fmt.Fprintf(&b, ".SH %s\n%s\n", title, escape.Replace(strings.Join(paragraphs, "\n\n")))
	}
	entry := func(name, text string) {
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n\\&%s\n", escape.Replace(name), escape.Replace(text))
	}
	section("NAME", "gpu_exporter - Prometheus exporter for NVIDIA GPUs")
	section("SYNOPSIS", "gpu_exporter [COMMAND] [FLAG...]")
	section("DESCRIPTION", "gpu_exporter samples the GPUs of a node with DCGM or NVML, and serves metrics for Prometheus on port 9400.",
		"The exporter reloads its configuration on SIGHUP, and when the file changes. With a mistake in it, the running configuration remains.",
		"The exit status is 0 after success or SIGTERM, and 1 after an error.")
	section("COMMANDS")
	for _, c := range commands() {
		entry(c.name+c.operands, c.help)
	}
	section("OPTIONS", "A flag has one dash or two. A flag wins over its environment variable, and both win over the configuration file. A variable that is empty counts as unset.")
	for _, subject := range append([]subject{{commandSubject, "Flags of the commands"}}, subjects()...) {
		fmt.Fprintf(&b, ".SS %s\n", subject.title)
		for _, s := range flags {
			if s.subject() == subject.name {
				entry(s.usage(), s.details())
			}
		}
	}
	section("FILES")
	entry("/etc/gpu_exporter/gpu_exporter.yaml", "The configuration of the packaged unit. Its keys are the names of the flags.")
	entry("/etc/default/gpu_exporter", "Environment variables of the packaged unit.")
	entry("/usr/share/gpu_exporter", "Rules and dashboards.")
	section("SEE ALSO", "nvidia-smi(1), dcgmi(8), systemctl(1)")
	return strings.ReplaceAll(b.String(), "\n\n", "\n.PP\n")
}

func bashCompletion(flags []*setting) string {
	var words []string
	for _, s := range flags {
		words = append(words, completed(s))
	}
	return header("#") + `_gpu_exporter() {
	local cur=${COMP_WORDS[COMP_CWORD]} words='` + strings.Join(commandNames(), " ") + `'
	case $cur in
	-*) words='` + strings.Join(words, " ") + `' ;;
	=) return ;; # a value: of those that are files, bash completes the names
	esac
	[[ ${COMP_WORDS[COMP_CWORD-1]} != = ]] || return
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
}
complete -o default -F _gpu_exporter gpu_exporter
`
}

func zshCompletion(flags []*setting) string {
	quote := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`)
	var b strings.Builder
	b.WriteString("#compdef gpu_exporter\n" + header("#") + "_arguments \\\n")
	for _, s := range flags {
		fmt.Fprintf(&b, "\t'*%s[%s]", completed(s), quote.Replace(s.help))
		switch {
		case slices.Contains([]string{"FILE", "DIR", "PATH"}, s.arg):
			fmt.Fprintf(&b, ":%s:_files", s.arg)
		case s.kind != toggle:
			fmt.Fprintf(&b, ":%s: ", s.arg)
		}
		b.WriteString("' \\\n")
	}
	b.WriteString("\t'1:command:((")
	for _, c := range commands() {
		fmt.Fprintf(&b, ` %s\:"%s"`, c.name, quote.Replace(c.help))
	}
	b.WriteString(" ))' \\\n\t'*:argument:_files'\n")
	return b.String()
}

func fishCompletion(flags []*setting) string {
	quote := strings.NewReplacer(`\`, `\\`, "'", `\'`)
	var b strings.Builder
	b.WriteString(header("#"))
	for _, c := range commands() {
		fmt.Fprintf(&b, "complete -c gpu_exporter -n __fish_use_subcommand -f -a %s -d '%s'\n", c.name, quote.Replace(c.help))
	}
	for _, s := range flags {
		condition, value := "", ""
		if s.commands != nil {
			condition = fmt.Sprintf(" -n '__fish_seen_subcommand_from %s'", strings.Join(s.commands, " "))
		}
		if s.kind != toggle {
			value = " -r"
		}
		fmt.Fprintf(&b, "complete -c gpu_exporter%s -l %s%s -d '%s'\n", condition, s.name, value, quote.Replace(s.help))
	}
	return b.String()
}

// completed returns a flag as it is completed: a value follows an equals sign.
func completed(s *setting) string {
	if s.kind == toggle {
		return "--" + s.name
	}
	return "--" + s.name + "="
}

func commandNames() (names []string) {
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return names
}

// TestCompletions runs each completion in its shell, if that is installed.
func TestCompletions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ typed, want string }{
		{"gpu_exporter --sample.int", "--sample.interval="},
		{"gpu_exporter do", "doctor"},
		{"gpu_exporter --kubernetes.en", "--kubernetes.enabled"},
	} {
		words := strings.Fields(tt.typed)
		for shell, script := range map[string]string{
			"bash": "compopt() { :; }; source completions/gpu_exporter.bash; COMP_WORDS=(" + tt.typed + ") COMP_CWORD=1; _gpu_exporter; echo ${COMPREPLY[@]}",
			"fish": "source completions/gpu_exporter.fish; complete -C '" + tt.typed + "'",
		} {
			if _, err := exec.LookPath(shell); err != nil {
				t.Logf("%s is not installed", shell)
				continue
			}
			cmd := exec.CommandContext(t.Context(), shell, "-c", script)
			cmd.Dir = packageDir
			out, err := cmd.CombinedOutput()
			completion, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\t")
			if err != nil || strings.TrimSuffix(completion, "=") != strings.TrimSuffix(tt.want, "=") {
				t.Errorf("%s completes %q to %q: %v, want %s", shell, words, out, err, tt.want)
			}
		}
	}
	if zsh, err := exec.LookPath("zsh"); err != nil {
		t.Log("zsh is not installed")
	} else if out, err := exec.CommandContext(t.Context(), zsh, "-n", packageDir+"completions/_gpu_exporter").CombinedOutput(); err != nil {
		t.Errorf("zsh: %v\n%s", err, out)
	}
}
