// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
	"gpu_exporter/collector/dcgmsim"
	"gpu_exporter/deploy/prometheus/rules"
	"gpu_exporter/podmapper/kubelettest"
)

// The tests of this file run what the documents show. A comment before a block changes how
// it is run:
//
//	<!-- serves -->            it runs until the end of the page; the other blocks use its port
//	<!-- prometheus -->        a configuration of Prometheus instead of the exporter
//	<!-- empty: REASON -->     a query without a result here
//	<!-- not run: REASON -->   not run; TestDocuments lists these blocks

// maxReadmeLines bounds README.md.
const maxReadmeLines = 150

// block is a fenced block of a page.
type block struct {
	line           int
	language, text string
	mark, reason   string
}

// documents returns the paths of all pages.
func documents(t *testing.T) (pages []string) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"build", ".git", "testdata", "node_modules"}, d.Name()):
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			pages = append(pages, path)
		}
		return nil
	})
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	return pages
}

// isRunbook reports whether a page is a runbook. Its commands are for nodes with a fault;
// deploy/prometheus/rules tests it.
func isRunbook(page string) bool { return filepath.Base(filepath.Dir(page)) == "runbooks" }

func readPage(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks returns the fenced blocks of a page.
func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	mark := regexp.MustCompile(`^<!-- ([a-z ]+)(?:: (.+))? -->$`)
	var open *block
	before := ""
	for i, line := range strings.Split(readPage(t, page), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open != nil:
			all, open = append(all, *open), nil
		case fence:
			open = &block{line: i + 1, language: language}
			if m := mark.FindStringSubmatch(before); m != nil {
				open.mark, open.reason = m[1], m[2]
			}
		case open != nil:
			open.text += line + "\n"
		}
		before = line
	}
	if open != nil {
		t.Errorf("%s:%d: the block has no end", page, open.line)
	}
	return all
}

// TestDocuments runs the commands of every page, checks its configurations, and evaluates
// its queries.
func TestDocuments(t *testing.T) {
	if n := strings.Count(readPage(t, "../../README.md"), "\n"); n > maxReadmeLines {
		t.Errorf("README.md has %d lines, the limit is %d", n, maxReadmeLines)
	}
	for _, page := range documents(t) {
		name, _ := filepath.Rel("../..", page)
		if isRunbook(page) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newPageRun(t, name)
			for _, b := range blocks(t, page) {
				r.at = fmt.Sprintf("%s:%d", name, b.line)
				r.run(b)
				if t.Failed() {
					return // later commands depend on it
				}
			}
		})
	}
}

// pageRun runs the blocks of one page in a directory that looks like a clone.
type pageRun struct {
	t        *testing.T
	page, at string
	dir      string
	env      []string
	servers  map[string]string // addresses by the documented ports
	queries  *promAPI
}

func newPageRun(t *testing.T, page string) *pageRun {
	t.Helper()
	r := &pageRun{t: t, page: page, dir: t.TempDir(), servers: map[string]string{}}
	build := filepath.Dir(built(t))
	if err := os.Symlink(build, filepath.Join(r.dir, "build")); err != nil {
		t.Fatal(err)
	}
	r.env = append(os.Environ(), "PATH="+build+":"+os.Getenv("PATH"), "REPOSITORY="+filepath.Dir(build),
		"GPU_EXPORTER_SIMULATE=h100x8", "GPU_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:0", "ADDRESS=127.0.0.1:0")
	return r
}

func (r *pageRun) run(b block) {
	r.t.Helper()
	kind := b.language + " " + b.mark
	switch {
	case b.mark == "not run" && b.reason != "":
		r.t.Logf("%s: not run: %s\n%s", r.at, b.reason, b.text)
	case kind == "sh ":
		r.shell(b.text)
	case kind == "sh serves":
		r.serve(b.text)
	case kind == "yaml ":
		r.check(b.text, "gpu_exporter.yaml", built(r.t), "check-config", "--config.file=gpu_exporter.yaml")
	case kind == "yaml prometheus":
		r.check(b.text, "prometheus.yml", tool(r.t, "promtool"), "check", "config", "prometheus.yml")
	case kind == "csv ":
		r.check(b.text, "counters.csv", built(r.t), "check-config", "--counters.file=counters.csv")
	case kind == "promql " || kind == "promql empty" && b.reason != "":
		r.evaluate(b.text, b.mark == "empty")
	case kind == " ": // a picture or an example of text
	default:
		r.t.Errorf("%s: unknown kind of block: %q: see the comment in docs_test.go", r.at, kind)
	}
}

// check writes a file and runs a command that checks it. Warnings are errors.
func (r *pageRun) check(text, file, program string, args ...string) {
	r.t.Helper()
	writeFile(r.t, filepath.Join(r.dir, file), text)
	cmd := exec.CommandContext(r.t.Context(), program, args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("warning:")) {
		r.t.Errorf("%s: %v\n%s\n%s", r.at, err, text, out)
	}
}

// prelude makes a block see the variables and functions of the blocks before it, and
// keeps make from building what other tests execute.
const prelude = `set -euo pipefail
[ ! -e .state ] || . ./.state
make() { command make -s --no-print-directory -C "$REPOSITORY" -o build "$@"; }
`

func (r *pageRun) command(ctx context.Context, text string) *exec.Cmd {
	// Only machines that ran dcgm-exporter have its files.
	text = strings.ReplaceAll(text, "/etc/dcgm-exporter/", "$REPOSITORY/etc/")
	cmd := exec.CommandContext(ctx, "bash", "-c", prelude+text+"{ export -p; declare -f; } > .state\n")
	cmd.Dir, cmd.Env = r.dir, r.env
	return cmd
}

// shell runs commands.
func (r *pageRun) shell(text string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	text = r.connect(text)
	if out, err := r.command(ctx, text).CombinedOutput(); err != nil {
		r.t.Errorf("%s: %v\n%s\n%s", r.at, err, text, out)
	}
}

// connect replaces the documented addresses by those of the servers. It starts a
// hostengine and an exporter if a page names them and has not started them.
func (r *pageRun) connect(text string) string {
	r.t.Helper()
	return regexp.MustCompile(`(?:localhost|127\.0\.0\.1):([0-9]+)`).ReplaceAllStringFunc(text, func(documented string) string {
		_, port, _ := strings.Cut(documented, ":")
		switch {
		case r.servers[port] != "":
		case port == "5555":
			sim := dcgmsim.NewNode(filepath.Join(filepath.Dir(built(r.t)), "sim"), r.t.TempDir(), "h100x8")
			engine, err := sim.StartEngine(r.t.Context(), "--port", "0")
			if err != nil {
				r.t.Fatal(err)
			}
			r.t.Cleanup(func() { _ = engine.Close() })
			r.servers[port] = engine.Address
		case port == "9400":
			r.servers[port] = startNode(r.t, "h100x8", "--web.enable-admin-api").address
		default:
			r.t.Errorf("%s: no command of the page listens on %s", r.at, documented)
		}
		return r.servers[port]
	})
}

// serve starts a server, which stops at the end of the page.
func (r *pageRun) serve(text string) {
	r.t.Helper()
	port := "9400"
	text = regexp.MustCompile(`((?:ADDRESS|--web\.listen-address)=)\S*:([0-9]+)`).ReplaceAllStringFunc(text, func(listen string) string {
		name, _, _ := strings.Cut(listen, "=")
		port = listen[strings.LastIndexByte(listen, ':')+1:]
		return name + "=$ADDRESS"
	})
	cmd, log, exited := r.command(context.Background(), r.connect(text)), &exportertest.Output{}, make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the shell runs the server as a child
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	r.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-exited
	})
	if strings.Contains(text, "dcgmsimd") {
		eventually(r.t, r.at+": the engine listens", func() bool { return strings.Contains(log.String(), "listening on ") })
		return
	}
	r.servers[port] = listening(r.t, log, exited)
	n := &node{address: r.servers[port], exited: exited}
	n.eventually(r.t, r.at+": the exporter is ready", func() bool {
		status, _ := n.tryGet(r.t, "/-/ready")
		return status == 200
	})
}

// evaluate runs queries in a Prometheus that scrapes a node with pods, jobs and faults.
// Except for those of podmapper/README.md, which TestAttributionQueries evaluates, each
// must have a result, or none if empty is set.
func (r *pageRun) evaluate(text string, empty bool) {
	r.t.Helper()
	if r.queries == nil {
		r.queries = startFaultyNode(r.t)
	}
	for _, query := range queriesIn(text) {
		results := func() int {
			var answer struct {
				Data struct{ Result []any }
			}
			if err := r.queries.get("/api/v1/query?query="+url.QueryEscape(query), &answer); err != nil {
				r.t.Fatalf("%s: %s: %v", r.at, query, err)
			}
			return len(answer.Data.Result)
		}
		switch {
		case strings.HasPrefix(r.page, "podmapper/"):
			results()
		case empty && results() > 0:
			r.t.Errorf("%s: %s has a result", r.at, query)
		case !empty:
			eventually(r.t, r.at+": a result of "+query, func() bool { return results() > 0 })
		}
	}
}

// queriesIn splits a block into queries: one a line, or several lines in brackets.
func queriesIn(text string) (queries []string) {
	query, depth := "", 0
	for line := range strings.Lines(text) {
		query += line
		code, _, _ := strings.Cut(line, "#")
		for _, c := range code {
			switch c {
			case '(', '{', '[':
				depth++
			case ')', '}', ']':
				depth--
			}
		}
		if depth == 0 && strings.TrimSpace(query) != "" {
			queries, query = append(queries, query), ""
		}
	}
	return queries
}

// startFaultyNode starts a Prometheus that scrapes a node of eight GPUs. Pods hold GPUs 6
// and 7; GPU 5 is lost; GPU 3 had XIDs and needs a reset; a different client holds the
// profiling hardware of GPU 4.
func startFaultyNode(t *testing.T) *promAPI {
	t.Helper()
	kubelet, socket := startKubelet(t)
	n := startNode(t, "h100x8", "--sample.interval=1s", "--families=full", "--kubernetes.enabled",
		"--kubernetes.pod-resources-socket="+socket)
	kubelet.SetPods(
		kubelettest.Pod("ml", "train", "main", "nvidia.com/gpu", n.uuid(t, "6")),
		kubelettest.Pod("ml", "infer-a", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::0"),
		kubelettest.Pod("ml", "infer-b", "main", "nvidia.com/gpu.shared", n.uuid(t, "7")+"::1"),
	)
	api := startPrometheus(t, fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: gpu
    honor_labels: true
    static_configs: [{targets: [%q]}]
`, n.address))
	n.eventually(t, "profiling has values", func() bool { // otherwise a lock would not end anything
		_, count := sumOf(n.scrape(t), "DCGM_FI_PROF_GR_ENGINE_ACTIVE", `gpu="4"`)
		return count == 1
	})
	for _, command := range []string{"xid 31 gpu 2", "xid 79 gpu 3", "recovery gpu 3 reset", "xid 79 gpu 5", "profiling gpu 4 locked"} {
		n.command(t, command)
	}
	n.has(t, 1, "gpu_xid_code_errors_total", `gpu="5"`)
	n.command(t, "lose gpu 5")
	return &api
}

// TestDocumentedSeries: the pages state how many series each preset adds to the counters.
func TestDocumentedSeries(t *testing.T) {
	stated := regexp.MustCompile("([0-9,]+) \\(`(?:--families=)?(lean|default|full)`\\)").FindAllStringSubmatch(readPage(t, "../../README.md"), -1)
	if len(stated) != 3 {
		t.Fatalf("README.md has %q, want the series of three presets", stated)
	}
	for _, m := range stated {
		number, preset := m[1], m[2]
		for _, page := range []string{"CONFIGURATION.md", "../../deploy/MIGRATING.md"} {
			if row := regexp.MustCompile("(?m)^\\| `" + preset + "` \\|.* " + number + " \\|$"); !row.MatchString(readPage(t, page)) {
				t.Errorf("%s does not state %s series for %s, as README.md does", page, number, preset)
			}
		}
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			want, err := strconv.Atoi(strings.ReplaceAll(number, ",", ""))
			if err != nil {
				t.Fatal(err)
			}
			n, count := startNode(t, "h100x8", "--families="+preset), 0
			defer func() { t.Logf("%s adds %d series, README.md states %d", preset, count, want) }()
			n.eventually(t, "the number of series that README.md states", func() bool {
				count = strings.Count("\n"+n.scrape(t), "\ngpu_")
				return count == want
			})
		})
	}
}

// TestDocumentLinks: each link to a file of the repository, and to a heading in it, has a
// target.
func TestDocumentLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	for _, page := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s has no target", page, m[1])
			} else if m[2] != "" && !slices.Contains(anchors(readPage(t, target)), m[2]) {
				t.Errorf("%s: %s has no heading %s", page, target, m[2])
			}
		}
	}
}

// anchors returns the anchors of the headings of a page, as GitHub forms them.
func anchors(page string) (all []string) {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for line := range strings.Lines(page) {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			all = append(all, "#"+strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), ""), " ", "-"))
		}
	}
	return all
}

// TestDocumentNames: the flags and metrics that the pages name exist.
func TestDocumentNames(t *testing.T) {
	help, err := exec.CommandContext(t.Context(), built(t), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	flags := string(help) + readPage(t, "FLAGS.md")
	const otherFlags = " --command --domain-socket --pause --subject.key " + // of dcgmsimd and dcgmi; an example
		"--dry-run --from-file --local --server-side " + // of kubectl
		"--create-namespace --logs --reuse-values --wait " + // of helm
		"--agent --web.enable-remote-write-receiver " + // of Prometheus
		"--build-arg --cap-add --cap-drop --gpus --name --read-only --rm --user " + // of docker
		"--check --ignore-missing --now " // of sha256sum, systemctl
	metrics := readPage(t, "../../collector/METRICS.md") + `
		gpu_exporter_build_info gpu_exporter_config_last_reload_successful gpu_exporter_config_last_reload_success_timestamp_seconds`
	flag, metric := regexp.MustCompile(`--[a-z][a-z0-9.-]*[a-z0-9]`), regexp.MustCompile(`\bgpu_[a-z0-9_]+\*?`)
	record, records := regexp.MustCompile(`\b(?:gpu|pod|job|namespace|user|node|cluster):[a-z0-9_]+:[a-z]+\b`), map[string]bool{}
	for _, g := range rules.RecordGroups() {
		for _, r := range g.Records {
			records[r.Name] = true
		}
	}
	notMetrics := map[string]bool{"gpu_exporter": true, "gpu_instance": true, "gpu_uuid": true}
	for _, page := range documents(t) {
		if name := filepath.Base(page); name == "METRICS.md" || name == "FIELDS.md" || name == "FLAGS.md" || isRunbook(page) {
			continue
		}
		text := readPage(t, page)
		names := map[string]bool{}
		for _, name := range flag.FindAllString(text, -1) {
			on := "--" + strings.TrimPrefix(strings.TrimPrefix(name, "--"), "no-")
			if !strings.Contains(flags, name) && !strings.Contains(flags, on) && !strings.Contains(otherFlags, " "+name+" ") {
				names[name] = true
			}
		}
		for _, name := range record.FindAllString(text, -1) {
			if !records[name] {
				names[name] = true
			}
		}
		for _, name := range metric.FindAllString(record.ReplaceAllString(text, ""), -1) {
			prefix, isPrefix := strings.CutSuffix(strings.TrimSuffix(name, "*"), "_")
			known := regexp.MustCompile(`\b` + prefix + `\b`)
			if isPrefix {
				known = regexp.MustCompile(`\b` + prefix + `_`)
			}
			if !notMetrics[name] && !known.MatchString(metrics) {
				names[name] = true
			}
		}
		if len(names) > 0 {
			t.Errorf("%s names flags or metrics that do not exist: %q", page, slices.Sorted(maps.Keys(names)))
		}
	}
}
