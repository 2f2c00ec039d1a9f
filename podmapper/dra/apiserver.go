// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package dra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

const (
	groupName    = "resource.k8s.io"
	resourceName = "resourceslices"
)

// knownVersions of the API group, best first. v1 is served by Kubernetes 1.34
// and newer, v1beta2 by 1.33 and v1beta1 by 1.32 and newer if they are asked for.
var knownVersions = [...]string{"v1", "v1beta2", "v1beta1"}

// Bounds of what is read. An object in etcd is at most 1.5 MiB, and a node has
// some ten slices.
const (
	maxAnswer = 64 << 20
	maxEvent  = 8 << 20
	maxStatus = 64 << 10
)

// watchTime is for how long the server is asked to keep a watch; up to twice
// that, so that the watches of many nodes do not all end at the same time.
const watchTime = 5 * time.Minute

// apiServer asks for the slices of one node. It is client-go's transport with
// its credentials, and not one of its clients: those wait and log on their own,
// read without bounds, and hide which request fails for what reason.
type apiServer struct {
	client  *http.Client
	base    *url.URL
	agent   string
	node    string
	timeout time.Duration // for each answer; for a watch, until it begins
}

func newAPIServer(c *rest.Config, node string, timeout time.Duration) (*apiServer, error) {
	c = rest.CopyConfig(c)
	c.Timeout = 0 // it would end watches
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, err
	}
	base, _, err := rest.DefaultServerUrlFor(c)
	if err != nil {
		return nil, err
	}
	agent := c.UserAgent
	if agent == "" {
		agent = rest.DefaultKubernetesUserAgent()
	}
	return &apiServer{client: client, base: base, agent: agent, node: node, timeout: timeout}, nil
}

func (s *apiServer) close() { utilnet.CloseIdleConnectionsFor(s.client.Transport) }

// versions asks which of the known versions are served, best first. It is never
// empty without an error.
func (s *apiServer) versions(ctx context.Context) ([]string, error) {
	body, err := s.get(ctx, nil, "apis", groupName)
	if apierrors.IsForbidden(err) {
		// Some clusters keep discovery to themselves. The list will tell.
		return knownVersions[:], nil
	}
	if err != nil {
		return nil, err
	}
	var group metav1.APIGroup
	if err := json.Unmarshal(body, &group); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	var served []string
	for _, known := range knownVersions {
		for _, v := range group.Versions {
			if v.Version == known {
				served = append(served, known)
				break
			}
		}
	}
	if len(served) == 0 {
		return nil, errNotServed
	}
	return served, nil
}

// list gives the slices, each as JSON, and the resource version they are of.
// notBefore is the least resource version that will do; "0" is any, which the
// server has at hand, and empty is the newest, which it may have to look up.
func (s *apiServer) list(ctx context.Context, version, notBefore string) (slices []json.RawMessage, resourceVersion string, err error) {
	query := s.ofNode()
	if notBefore != "" {
		query.Set("resourceVersion", notBefore)
	}
	body, err := s.get(ctx, query, "apis", groupName, version, resourceName)
	if err != nil {
		return nil, "", err
	}
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, "", fmt.Errorf("%w: %w", errMalformed, err)
	}
	if list.Metadata.ResourceVersion == "" {
		return nil, "", fmt.Errorf("%w: a list without a resource version", errMalformed)
	}
	return list.Items, list.Metadata.ResourceVersion, nil
}

func (s *apiServer) ofNode() url.Values {
	return url.Values{"fieldSelector": {"spec.nodeName=" + s.node}}
}

// event is a line of a watch.
type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// watch asks for what changes after a resource version. It returns once the
// server has agreed.
func (s *apiServer) watch(ctx context.Context, version, resourceVersion string) (*stream, error) {
	asked := watchTime + rand.N(watchTime)
	query := s.ofNode()
	query.Set("watch", "true")
	query.Set("allowWatchBookmarks", "true")
	query.Set("resourceVersion", resourceVersion)
	query.Set("timeoutSeconds", strconv.Itoa(int(asked.Seconds())))

	// A server that does not end the watch is not there any more.
	ctx, cancel := context.WithTimeout(ctx, asked+s.timeout)
	body, err := s.open(ctx, query, "apis", groupName, version, resourceName)
	if err != nil {
		cancel()
		return nil, err
	}
	return &stream{ctx: ctx, cancel: cancel, body: body}, nil
}

// stream is a watch that has begun.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	body   io.ReadCloser
}

// each passes on the events until the stream ends; that is then no error.
func (s *stream) each(events chan<- event) error {
	defer s.cancel()
	defer s.body.Close()
	limited := &io.LimitedReader{R: s.body}
	decoder := json.NewDecoder(limited)
	for {
		limited.N = maxEvent
		var e event
		err := decoder.Decode(&e)
		var syntax *json.SyntaxError
		var mistyped *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax), errors.As(err, &mistyped):
			return fmt.Errorf("%w: %w", errMalformed, err)
		case err != nil && limited.N <= 0:
			return fmt.Errorf("%w: an event of more than %d bytes", errMalformed, maxEvent)
		case err != nil:
			return nil // the connection has ended, in whatever way
		}
		if e.Type == "ERROR" {
			return statusError(http.StatusInternalServerError, e.Object)
		}
		select {
		case events <- e:
		case <-s.ctx.Done():
			return nil
		}
	}
}

// get reads an answer as a whole.
func (s *apiServer) get(ctx context.Context, query url.Values, path ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, errNoAnswer)
	defer cancel()
	body, err := s.open(ctx, query, path...)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("%w: more than %d bytes", errMalformed, maxAnswer)
	}
	return b, nil
}

// open gives the body of a good answer. The answer has to begin in time, but
// may go on for as long as ctx.
func (s *apiServer) open(ctx context.Context, query url.Values, path ...string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(s.timeout, func() { cancel(errNoAnswer) })
	defer timer.Stop()

	u := s.base.JoinPath(path...)
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", s.agent)
	answer, err := s.client.Do(r)
	if err != nil {
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = fmt.Errorf("%w from %s", errNoAnswer, u.Host)
		}
		cancel(nil)
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		defer cancel(nil)
		defer answer.Body.Close()
		body, err := io.ReadAll(io.LimitReader(answer.Body, maxStatus))
		if err != nil {
			body = nil // the code says enough
		}
		return nil, statusError(answer.StatusCode, body)
	}
	return &cancelingBody{ReadCloser: answer.Body, cancel: cancel}, nil
}

// cancelingBody ends its request when it is closed.
type cancelingBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *cancelingBody) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// statusError makes an error of what the server says of one. What stands
// between may answer with something else than a Status.
func statusError(code int, body []byte) error {
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Code != 0 {
		return &apierrors.StatusError{ErrStatus: status}
	}
	return apierrors.NewGenericServerResponse(code, http.MethodGet,
		schema.GroupResource{Group: groupName, Resource: resourceName}, "", http.StatusText(code), 0, true)
}

// tooOld says whether the server cannot start from the resource version asked
// for, and so has to be asked without one.
func tooOld(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}
