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
	"strconv"
	"strings"
	"time"
	"unicode"

	"gpu_exporter/podmapper/internal/poll"
)

// Bounds of responses. A container has about 2 KiB in a list, and rarely more than
// 20 KiB in an inspection.
const (
	maxVersionBytes = 1 << 20
	maxListBytes    = 32 << 20
	maxInspectBytes = 4 << 20
	maxEventBytes   = 1 << 20
	maxErrorBytes   = 4 << 10
	maxHeaderBytes  = 64 << 10
	maxContainers   = 4096
	maxMessage      = 200 // characters of an error or a name
)

// preferredAPI is the minor version of Docker's API 1.x to use. Docker 25 and
// later have 1.44, and Docker 29 has nothing older by default. Podman 4 has 1.41.
// DeviceRequests exist since 1.40, HostConfig.Annotations since 1.43.
const preferredAPI = 44

// parseAPIVersion returns the minor version of "1.<minor>".
func parseAPIVersion(s string) (minor int, ok bool) { return cutNumber(s, "1.") }

// cutNumber parses a decimal number after a prefix. Example: gi12 is 12 after gi.
func cutNumber(s, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(s, prefix)
	n, err := strconv.ParseUint(digits, 10, 16)
	return int(n), ok && err == nil
}

// api is the result of the version negotiation.
type api struct {
	prefix string // of paths, such as /v1.44; empty if the engine reports no version
	name   string // of the engine, such as Podman Engine 4.3.1
}

// engine is a client of a Docker-compatible engine.
type engine struct {
	socket  string
	timeout time.Duration // of one call
	maxList int64         // bytes
	http    *http.Client
}

func newEngine(socket string, timeout time.Duration) *engine {
	dialer := net.Dialer{Timeout: timeout}
	return &engine{
		socket:  socket,
		timeout: timeout,
		maxList: maxListBytes,
		http: &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return dialer.DialContext(ctx, "unix", socket)
				},
				DisableCompression:     true,
				MaxIdleConns:           2,
				IdleConnTimeout:        2 * time.Minute,
				MaxResponseHeaderBytes: maxHeaderBytes,
				// The event stream has no other deadline. Engines send its header at once.
				ResponseHeaderTimeout: timeout,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (e *engine) close() { e.http.CloseIdleConnections() }

// open starts a call. The caller closes the body of the response.
func (e *engine) open(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // without the query, which is long
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text := "status " + resp.Status
	var body struct{ Message string }
	if json.NewDecoder(io.LimitReader(resp.Body, maxErrorBytes)).Decode(&body) == nil && body.Message != "" {
		text += ": " + printable(body.Message)
	}
	return nil, poll.WithReason(statusReason(resp.StatusCode), errors.New(text))
}

// get makes a call and decodes up to limit bytes of its response.
func (e *engine) get(ctx context.Context, path string, query url.Values, limit int64, decode func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	resp, err := e.open(ctx, path, query)
	if err == nil {
		err = readBody(resp, limit, decode)
	}
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func readBody(resp *http.Response, limit int64, decode func(io.Reader) error) error {
	defer resp.Body.Close()
	var over *http.MaxBytesError
	body := http.MaxBytesReader(nil, resp.Body, limit)
	if resp.ContentLength <= limit {
		err := decode(body)
		if !errors.As(err, &over) {
			// The connection is reusable only after the rest of the body, a newline.
			_, _ = io.CopyN(io.Discard, body, 512)
			return err
		}
	}
	return tooLarge("more than %d MiB", limit>>20)
}

// negotiate selects the version of the API.
func (e *engine) negotiate(ctx context.Context) (api, error) {
	var v struct {
		Platform                           struct{ Name string }
		Components                         []struct{ Name string }
		Version, APIVersion, MinAPIVersion string
	}
	err := e.get(ctx, "/version", nil, maxVersionBytes, func(r io.Reader) error { return json.NewDecoder(r).Decode(&v) })
	if err != nil {
		if r := poll.ReasonOf(err); r == poll.Unsupported || r == poll.Forbidden {
			return api{}, nil // a proxy may block it; paths without a version work too
		}
		return api{}, err
	}
	a := api{name: v.Platform.Name}
	if len(v.Components) > 0 && v.Components[0].Name != "Engine" {
		a.name = v.Components[0].Name // Podman's platform is the Linux distribution
	}
	a.name = printable(strings.TrimSpace(cmp.Or(a.name, "Docker Engine") + " " + v.Version))
	if newest, ok := parseAPIVersion(v.APIVersion); ok {
		oldest, _ := parseAPIVersion(v.MinAPIVersion)
		a.prefix = fmt.Sprintf("/v1.%d", max(min(preferredAPI, newest), oldest))
	}
	return a, nil
}

// listed is a container in the engine's list.
type listed struct {
	ID     string `json:"Id"`
	Names  []string
	Image  string
	Labels map[string]string
}

// name returns the container's own name. Legacy links add names such as /web/db.
func (c *listed) name() string {
	for _, n := range c.Names {
		if n = strings.TrimPrefix(n, "/"); n != "" && !strings.Contains(n, "/") {
			return n
		}
	}
	return c.ID[:min(len(c.ID), 12)]
}

// ofKubernetes reports whether the kubelet created the container, through
// cri-dockerd. The labels are those of kubelet pkg/kubelet/types/labels.go.
func (c *listed) ofKubernetes() bool {
	return c.Labels["io.kubernetes.pod.uid"] != "" || c.Labels["io.kubernetes.pod.name"] != ""
}

// list calls each for every running and paused container. Podman omits paused
// containers without the filter, but they keep their GPU memory.
func (e *engine) list(ctx context.Context, a api, each func(listed) error) error {
	query := url.Values{"filters": {`{"status":["running","paused"]}`}}
	return e.get(ctx, a.prefix+"/containers/json", query, e.maxList, func(r io.Reader) error { return decodeList(r, each) })
}

// decodeList decodes one element at a time to bound the memory.
func decodeList(r io.Reader, each func(listed) error) error {
	d := json.NewDecoder(r)
	switch start, err := d.Token(); {
	case err != nil:
		return err
	case start == nil:
		return nil // null
	case start != json.Delim('['):
		return malformed("not a list")
	}
	for d.More() {
		var c listed
		if err := d.Decode(&c); err != nil {
			return err
		}
		if !isID(c.ID) {
			return malformed("%q is not a container ID", printable(c.ID))
		}
		if err := each(c); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

const idLength = 64

// isID accepts short IDs, but nothing that changes the meaning of a path.
func isID(s string) bool {
	return len(s) >= 12 && len(s) <= idLength && strings.Trim(s, "0123456789abcdef") == ""
}

// inspect returns the engine's description of a container.
func (e *engine) inspect(ctx context.Context, a api, id string) (response []byte, err error) {
	err = e.get(ctx, a.prefix+"/containers/"+id+"/json", nil, maxInspectBytes, func(r io.Reader) (err error) {
		response, err = io.ReadAll(r)
		return err
	})
	return response, err
}

// events calls opened when the stream of events begins, and received for each
// event that can change the table. It returns an error when the stream ends.
func (e *engine) events(ctx context.Context, a api, opened, received func()) error {
	// The filter excludes exec_start and health_status, which every health check
	// causes. Podman before 4.4 reports die, but filters it by the name died.
	query := url.Values{"filters": {`{"type":["container"],"event":["start","die","died","rename"]}`}}
	resp, err := e.open(ctx, a.prefix+"/events", query)
	if err != nil {
		return fmt.Errorf("GET %s/events: %w", a.prefix, err)
	}
	defer resp.Body.Close()
	opened()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		switch line := bytes.TrimSpace(lines.Bytes()); {
		case len(line) == 0:
		case !json.Valid(line):
			return fmt.Errorf("reading events: %w", malformed("not JSON"))
		default:
			received()
		}
	}
	err = cmp.Or(lines.Err(), io.EOF)
	if errors.Is(err, bufio.ErrTooLong) {
		err = tooLarge("more than %d MiB", maxEventBytes>>20)
	}
	return fmt.Errorf("reading events: %w", err)
}

// printable makes text from the engine safe for one line of a log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s[:min(len(s), 4*(maxMessage+1))])
	if r := []rune(s); len(r) > maxMessage {
		return string(r[:maxMessage]) + "…"
	}
	return s
}
