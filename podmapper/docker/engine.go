// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Bounds of the engine's answers. A container is about 2 KiB of a list, and
// rarely more than 20 KiB by itself.
const (
	maxVersionBytes = 1 << 20
	maxListBytes    = 32 << 20
	maxInspectBytes = 4 << 20
	maxEventBytes   = 1 << 20
	maxErrorBytes   = 4 << 10
	maxHeaderBytes  = 64 << 10
	maxContainers   = 4096
	maxMessage      = 200 // of an error or a name, in characters
)

// preferredAPI is asked for where it is served. Docker 25 and newer serve it, and
// Docker 29 nothing older by default. Podman 4 has 1.41. DeviceRequests came
// with 1.40, HostConfig.Annotations with 1.43.
var preferredAPI = apiVersion{1, 44}

// apiVersion is a version of Docker's API.
type apiVersion struct{ major, minor int }

func (v apiVersion) compare(w apiVersion) int {
	return cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor))
}

func parseAPIVersion(s string) (apiVersion, bool) {
	var v apiVersion
	major, minor, ok := strings.Cut(s, ".")
	return v, ok && number(major, "", &v.major) && number(minor, "", &v.minor)
}

// api is what is known of the engine that answers.
type api struct {
	prefix string // of paths, such as /v1.44; empty if versions are not known
	name   string // of the engine, such as Podman Engine 4.3.1; for people
}

// engine asks a Docker-compatible engine through its socket.
type engine struct {
	socket  string
	timeout time.Duration // for a call, and for the beginning of the events
	http    *http.Client
}

func newEngine(socket string, timeout time.Duration) *engine {
	var dialer net.Dialer
	return &engine{
		socket:  socket,
		timeout: timeout,
		http: &http.Client{
			Transport: &http.Transport{ // no proxy: this never leaves the machine
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return dialer.DialContext(ctx, "unix", socket)
				},
				DisableCompression:     true,
				MaxIdleConns:           2,
				IdleConnTimeout:        2 * time.Minute,
				MaxResponseHeaderBytes: maxHeaderBytes,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (e *engine) close() { e.http.CloseIdleConnections() }

// open begins a call. The body of the response is the caller's to close.
func (e *engine) open(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		var asked *url.Error
		if errors.As(err, &asked) {
			err = asked.Err // it repeats the whole query
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	failed := &statusError{status: resp.StatusCode}
	var answer struct{ Message string }
	if body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes)); err == nil && json.Unmarshal(body, &answer) == nil {
		failed.message = printable(answer.Message)
	}
	return nil, failed
}

// get makes a call and has its answer read, which ends in time and is not larger
// than limit.
func (e *engine) get(ctx context.Context, path string, query url.Values, limit int64, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	resp, err := e.open(ctx, path, query)
	if err == nil {
		err = readBody(resp, limit, read)
	}
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func readBody(resp *http.Response, limit int64, read func(io.Reader) error) error {
	defer resp.Body.Close()
	tooLarge := fmt.Errorf("%w: more than %d MiB", errTooLarge, limit>>20)
	if resp.ContentLength > limit {
		return tooLarge
	}
	body := http.MaxBytesReader(nil, resp.Body, limit)
	err := read(body)
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return tooLarge
	}
	if err == nil {
		// What is left, hardly more than a line's end, would cost the connection.
		_, _ = io.CopyN(io.Discard, body, 512)
	}
	return err
}

// negotiate finds out which version of the API to use.
func (e *engine) negotiate(ctx context.Context) (api, error) {
	var v struct {
		Platform                           struct{ Name string }
		Components                         []struct{ Name string }
		Version, APIVersion, MinAPIVersion string // their keys are ApiVersion and MinAPIVersion; case does not matter
	}
	err := e.get(ctx, "/version", nil, maxVersionBytes, func(r io.Reader) error { return json.NewDecoder(r).Decode(&v) })
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusNotFound || status.status == http.StatusForbidden) {
		return api{}, nil // a proxy may keep it back; paths do without a version
	}
	if err != nil {
		return api{}, err
	}
	a := api{name: v.Platform.Name}
	if len(v.Components) > 0 && v.Components[0].Name != "Engine" {
		a.name = v.Components[0].Name // Podman's platform is the Linux distribution
	}
	a.name = printable(strings.TrimSpace(cmp.Or(a.name, "Docker Engine") + " " + v.Version))

	newest, ok := parseAPIVersion(v.APIVersion)
	if !ok {
		return a, nil
	}
	use := preferredAPI
	if newest.compare(use) < 0 {
		use = newest
	}
	if oldest, ok := parseAPIVersion(v.MinAPIVersion); ok && oldest.compare(use) > 0 {
		use = oldest
	}
	a.prefix = fmt.Sprintf("/v%d.%d", use.major, use.minor)
	return a, nil
}

// listed is a container in the engine's list.
type listed struct {
	ID     string `json:"Id"`
	Names  []string
	Image  string
	Labels map[string]string
}

// name picks the container's own name. With legacy links it also has names such
// as /web/db.
func (c *listed) name() string {
	for _, n := range c.Names {
		if n = strings.TrimPrefix(n, "/"); n != "" && !strings.Contains(n, "/") {
			return n
		}
	}
	return c.ID[:min(len(c.ID), 12)]
}

// ofKubernetes says whether the kubelet made the container: by way of cri-dockerd,
// which gives it these labels (kubelet pkg/kubelet/types/labels.go).
func (c *listed) ofKubernetes() bool {
	return c.Labels["io.kubernetes.pod.uid"] != "" || c.Labels["io.kubernetes.pod.name"] != ""
}

// list gives the running and paused containers, one after the other. Without the
// filter Podman would leave the paused ones out, which keep their GPU memory.
func (e *engine) list(ctx context.Context, a api, each func(listed) error) error {
	query := url.Values{"filters": {`{"status":["running","paused"]}`}}
	return e.get(ctx, a.prefix+"/containers/json", query, maxListBytes, func(r io.Reader) error {
		return decodeList(r, each)
	})
}

// decodeList decodes element by element, so that a list in memory is never larger
// than what is kept of it.
func decodeList(r io.Reader, each func(listed) error) error {
	d := json.NewDecoder(r)
	switch begin, err := d.Token(); {
	case err != nil:
		return err
	case begin == nil:
		return nil // null
	case begin != json.Delim('['):
		return fmt.Errorf("%w: no list", errMalformed)
	}
	for d.More() {
		var c listed
		if err := d.Decode(&c); err != nil {
			return err
		}
		if !isID(c.ID) {
			return fmt.Errorf("%w: %q is no ID of a container", errMalformed, printable(c.ID))
		}
		if err := each(c); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

const idLength = 64

// isID is lenient about the length, but lets nothing through that would change
// the meaning of a path.
func isID(s string) bool {
	if len(s) < 12 || len(s) > idLength {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// inspect gives all that the engine says of a container.
func (e *engine) inspect(ctx context.Context, a api, id string) ([]byte, error) {
	var answer []byte
	err := e.get(ctx, a.prefix+"/containers/"+id+"/json", nil, maxInspectBytes, func(r io.Reader) error {
		var err error
		answer, err = io.ReadAll(r)
		return err
	})
	return answer, err
}

// events calls opened when the engine begins to report events, and then happened
// for each that can change the table, until ctx or the stream ends. It always
// returns an error.
func (e *engine) events(ctx context.Context, a api, opened, happened func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The stream has no end, but its beginning has a deadline: engines send the
	// header without waiting for an event.
	begin := time.AfterFunc(e.timeout, func() { cancel(context.DeadlineExceeded) })
	defer begin.Stop()
	// The filters spare the engine exec_start and health_status of every
	// health check. Podman before 4.4 knows the event that it reports as die only as died.
	query := url.Values{"filters": {`{"type":["container"],"event":["start","die","died","rename"]}`}}
	resp, err := e.open(ctx, a.prefix+"/events", query)
	if err == nil && !begin.Stop() {
		resp.Body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("GET %s/events: %w", a.prefix, err)
	}
	defer resp.Body.Close()
	opened()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		// Docker can be asked for JSON sequences, and then marks their beginnings.
		line := bytes.TrimLeft(lines.Bytes(), "\x1e \t")
		if len(line) == 0 {
			continue
		}
		var event struct{ Type, Action string }
		if err := json.Unmarshal(line, &event); err != nil {
			return fmt.Errorf("events: %w: %w", errMalformed, err)
		}
		if event.Type == "" || event.Type == "container" {
			happened()
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = errTooLarge
		}
		return fmt.Errorf("events: %w", err)
	}
	return fmt.Errorf("events: %w", io.EOF)
}

// socketPath takes a plain path or the URL forms of a unix socket, as in
// DOCKER_HOST.
func socketPath(s string) (string, error) {
	path := s
	if rest, ok := strings.CutPrefix(s, "unix://"); ok {
		path = rest
	} else if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		path = rest
	} else if scheme, _, ok := strings.Cut(s, "://"); ok {
		return "", fmt.Errorf("docker socket %q: %s is not supported; give the path of a unix socket", s, scheme)
	}
	// sun_path ends with a zero byte.
	if limit := len(syscall.RawSockaddrUnix{}.Path) - 1; path == "" || len(path) > limit {
		return "", fmt.Errorf("docker socket %q: a path of 1 to %d bytes is needed", s, limit)
	}
	return path, nil
}

// printable makes a text of the engine fit for a line of a log.
func printable(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxMessage {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}
