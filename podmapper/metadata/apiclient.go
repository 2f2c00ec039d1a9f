// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

// What is asked for: metadata, and never whole objects.
const (
	protobuf = "application/vnd.kubernetes.protobuf"

	acceptList   = protobuf + ";as=" + kindList + ";g=meta.k8s.io;v=v1"
	acceptWatch  = protobuf + ";as=" + kindObject + ";g=meta.k8s.io;v=v1"
	acceptObject = protobuf + ";as=" + kindObject + ";g=meta.k8s.io;v=v1," +
		"application/json;as=" + kindObject + ";g=meta.k8s.io;v=v1" // extension servers may have no protobuf
	acceptJSON = "application/json"
)

const (
	pageSize = 100
	// readBuffer is for what is read ahead of a list or a watch.
	readBuffer = 32 << 10
	maxStatus  = 64 << 10 // of an error's text
	maxVersion = 4 << 20  // of the list of resources of an API version
	// maxRetryAfter bounds how long a server can make us wait.
	maxRetryAfter = 5 * time.Minute
)

var (
	errNoAnswer = errors.New("no answer in time")
	// errExpired says that the server cannot go on from the resource version
	// that it was asked for.
	errExpired = errors.New("the resource version is too old")
)

// apiClient asks the API server for metadata. It is client-go's transport with
// its credentials, and not client-go's metadata client or reflector: those hold
// whole lists of all metadata at once, and hide which request fails and why.
type apiClient struct {
	http    *http.Client
	base    *url.URL
	agent   string
	timeout time.Duration // until an answer begins, and between two parts of one
}

func newAPIClient(c *rest.Config, timeout time.Duration) (*apiClient, error) {
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
	return &apiClient{http: client, base: base, agent: agent, timeout: timeout}, nil
}

func (a *apiClient) close() { utilnet.CloseIdleConnectionsFor(a.http.Transport) }

// answer is the body of a good answer. Reading fails with errNoAnswer if nothing
// comes for the time of patience.
type answer struct {
	mediaType string
	body      io.ReadCloser
	ctx       context.Context
	cancel    context.CancelCauseFunc
	patience  *time.Timer
	timeout   time.Duration
}

// get asks for a path. The answer must be closed.
func (a *apiClient) get(ctx context.Context, accept string, query url.Values, path ...string) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	patience := time.AfterFunc(a.timeout, func() { cancel(errNoAnswer) })
	body, contentType, err := a.begin(ctx, accept, query, path)
	if err != nil {
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = failed(ReasonTimeout, "%w from %s", errNoAnswer, a.base.Host)
		}
		patience.Stop()
		cancel(nil)
		return nil, err
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		mediaType = ""
	}
	return &answer{
		mediaType: mediaType, body: body, ctx: ctx, cancel: cancel, patience: patience, timeout: a.timeout,
	}, nil
}

func (a *apiClient) begin(ctx context.Context, accept string, query url.Values, path []string) (body io.ReadCloser, contentType string, err error) {
	u := a.base.JoinPath(path...)
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", err
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("User-Agent", a.agent)
	got, err := a.http.Do(r)
	var whole *url.Error
	if errors.As(err, &whole) { // its text is a long one
		return nil, "", failed(reasonOf(err), "asking %s: %w", a.base.Host, whole.Err)
	}
	if err != nil {
		return nil, "", err
	}
	if got.StatusCode != http.StatusOK {
		defer got.Body.Close()
		return nil, "", statusError(got)
	}
	return got.Body, got.Header.Get("Content-Type"), nil
}

func (r *answer) Read(b []byte) (int, error) {
	n, err := r.body.Read(b)
	if n > 0 {
		r.patience.Reset(r.timeout)
	}
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	case errors.Is(context.Cause(r.ctx), errNoAnswer):
		return n, errNoAnswer
	}
	return n, fmt.Errorf("%w: %w", errCut, err)
}

func (r *answer) close() {
	r.patience.Stop()
	r.cancel(nil)
	r.body.Close()
}

// statusError says what a server answered instead of what was asked for. What
// stands between may answer with something else than a Status.
func statusError(got *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(got.Body, maxStatus))
	if err != nil {
		body = nil // the code says enough
	}
	message := ""
	if kind, status, err := openEnvelope(body); err == nil && kind == kindStatus {
		message, _ = readStatus(status)
	} else {
		var status struct{ Message string }
		if json.Unmarshal(body, &status) == nil {
			message = status.Message
		}
	}
	f := codeError(got.StatusCode, message)
	if seconds, err := strconv.Atoi(got.Header.Get("Retry-After")); err == nil && seconds > 0 {
		f.after = min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	return f
}

// readStatus takes what is needed of a metav1.Status. What cannot be read is
// left out.
func readStatus(b []byte) (message string, code int) {
	if err := fields(b, func(field protowire.Number, value []byte, n uint64) error {
		switch field {
		case statusMessage:
			message = strings.ToValidUTF8(string(value), "?")
		case statusCode:
			code = int(int32(n))
		}
		return nil
	}); err != nil {
		return "", 0
	}
	return message, code
}

// codeError makes an error of an HTTP status code.
func codeError(code int, message string) *failure {
	const longest = 300
	if len(message) > longest {
		message = strings.ToValidUTF8(message[:longest], "") + "…"
	}
	f := &failure{reason: ReasonOther, err: fmt.Errorf("the API server says %d %s: %s", code, http.StatusText(code), message)}
	if message == "" {
		f.err = fmt.Errorf("the API server says %d %s", code, http.StatusText(code))
	}
	switch {
	case code == http.StatusGone:
		f.err = fmt.Errorf("%w: %w", errExpired, f.err)
	case code == http.StatusUnauthorized:
		f.reason = ReasonUnauthorized
	case code == http.StatusForbidden:
		f.reason = ReasonForbidden
	case code == http.StatusNotFound:
		f.reason = ReasonNotFound
	case code == http.StatusNotAcceptable, code == http.StatusUnsupportedMediaType, code == http.StatusMethodNotAllowed:
		f.reason = ReasonUnsupported
	case code == http.StatusTooManyRequests:
		f.reason = ReasonRateLimited
	case code == http.StatusGatewayTimeout, code == http.StatusRequestTimeout:
		f.reason = ReasonTimeout
	case code >= http.StatusInternalServerError:
		f.reason = ReasonUnavailable
	}
	return f
}

// podsOf restricts to the pods of a node. The API server has an index for it.
func podsOf(node string) url.Values { return url.Values{"fieldSelector": {"spec.nodeName=" + node}} }

// list calls item for each pod of a node, and gives the resource version to
// watch from. It takes what the server has at hand (which it then sends without
// pages), or, if it has to be consistent, the newest state.
func (a *apiClient) list(ctx context.Context, node string, consistent bool, item func(object []byte) error) (resourceVersion string, err error) {
	query := podsOf(node)
	query.Set("limit", strconv.Itoa(pageSize))
	if !consistent {
		query.Set("resourceVersion", "0")
	}
	for {
		meta, err := a.page(ctx, query, item)
		if err != nil {
			return "", err
		}
		if meta.resourceVersion == "" {
			return "", fmt.Errorf("%w: a list without a resource version", errMalformed)
		}
		if meta.next == "" {
			return meta.resourceVersion, nil
		}
		query.Del("resourceVersion")
		query.Set("continue", meta.next)
	}
}

func (a *apiClient) page(ctx context.Context, query url.Values, item func(object []byte) error) (listMeta, error) {
	r, err := a.pods(ctx, acceptList, query)
	if err != nil {
		return listMeta{}, err
	}
	defer r.close()
	return readList(bufio.NewReaderSize(r, readBuffer), item)
}

// pods asks for pods, and sees to it that only their metadata come.
func (a *apiClient) pods(ctx context.Context, accept string, query url.Values) (*answer, error) {
	r, err := a.get(ctx, accept, query, "api", "v1", "pods")
	switch {
	case err != nil && reasonOf(err) == ReasonNotFound:
		return nil, failed(ReasonUnsupported, "%w", err)
	case err != nil:
		return nil, err
	case r.mediaType != protobuf:
		r.close()
		return nil, failed(ReasonUnsupported, "the API server sends %q instead of the metadata of pods", r.mediaType)
	}
	return r, nil
}

// watchEvent is one of a watch. The object is valid until the next one is read.
type watchEvent struct {
	kind   string
	object []byte
}

// Kinds of events.
const (
	eventAdded    = "ADDED"
	eventModified = "MODIFIED"
	eventDeleted  = "DELETED"
	eventBookmark = "BOOKMARK"
	eventError    = "ERROR"
)

// watch asks for what changes after a resource version. It returns once the
// server has agreed; the answer must be closed.
func (a *apiClient) watch(ctx context.Context, node, resourceVersion string, keep time.Duration) (*answer, error) {
	query := podsOf(node)
	query.Set("watch", "true")
	query.Set("allowWatchBookmarks", "true")
	query.Set("resourceVersion", resourceVersion)
	query.Set("timeoutSeconds", strconv.Itoa(max(1, int(keep.Seconds()))))
	r, err := a.pods(ctx, acceptWatch, query)
	if err != nil {
		return nil, err
	}
	// A server that does not end the watch in time is not there any more.
	r.timeout += keep
	r.patience.Reset(r.timeout)
	return r, nil
}

// watchReader reads the events of a watch: each with its length, of four bytes,
// before it. Source: k8s.io/apimachinery/pkg/util/framer and
// pkg/runtime/serializer/protobuf.
type watchReader struct {
	r   io.Reader
	buf []byte
}

// next gives the next event. The error is io.EOF if the watch has ended between
// two.
func (w *watchReader) next() (watchEvent, error) {
	var length [4]byte
	if _, err := io.ReadFull(w.r, length[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return watchEvent{}, io.EOF
		}
		return watchEvent{}, cut(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxObject {
		return watchEvent{}, errTooLarge
	}
	var err error
	if w.buf, err = readExactly(w.r, w.buf, int(n)); err != nil {
		return watchEvent{}, err
	}
	return parseWatchEvent(w.buf)
}

func parseWatchEvent(b []byte) (watchEvent, error) {
	var e watchEvent
	var raw []byte
	err := fields(b, func(field protowire.Number, value []byte, _ uint64) error {
		switch field {
		case watchEventType:
			e.kind = string(value)
		case watchEventObject:
			return fields(value, func(field protowire.Number, value []byte, _ uint64) error {
				if field == rawExtensionRaw {
					raw = value
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return watchEvent{}, err
	}
	kind, object, err := openEnvelope(raw)
	switch {
	case err != nil:
		return watchEvent{}, err
	case e.kind == eventError || kind == kindStatus:
		message, code := readStatus(object)
		return watchEvent{}, codeError(code, message)
	case kind != kindObject:
		return watchEvent{}, fmt.Errorf("%w: a %q instead of a %s", errMalformed, kind, kindObject)
	}
	e.object = object
	return e, nil
}

// controllerOf gives the UID and the controller of an object.
func (a *apiClient) controllerOf(ctx context.Context, path []string) (uid string, above owner, err error) {
	r, err := a.get(ctx, acceptObject, nil, path...)
	if err != nil {
		return "", owner{}, err
	}
	defer r.close()
	b, err := readAll(r, maxObject)
	if err != nil {
		return "", owner{}, err
	}
	if r.mediaType == protobuf {
		kind, inner, err := openEnvelope(b)
		if err != nil {
			return "", owner{}, err
		}
		if kind != kindObject {
			return "", owner{}, fmt.Errorf("%w: a %q instead of a %s", errMalformed, kind, kindObject)
		}
		o, err := (&decoder{}).object(inner)
		if err != nil {
			return "", owner{}, err
		}
		return o.pod.UID, o.controller, nil
	}
	var o metav1.PartialObjectMetadata
	if err := json.Unmarshal(b, &o); err != nil {
		return "", owner{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if c := metav1.GetControllerOfNoCopy(&o); c != nil {
		above = owner{apiVersion: c.APIVersion, kind: c.Kind, name: c.Name, uid: string(c.UID)}
	}
	return string(o.UID), above, nil
}

// resources gives those of an API version.
func (a *apiClient) resources(ctx context.Context, apiVersion string) ([]metav1.APIResource, error) {
	r, err := a.get(ctx, acceptJSON, nil, versionPath(apiVersion)...)
	if err != nil {
		return nil, err
	}
	defer r.close()
	b, err := readAll(r, maxVersion)
	if err != nil {
		return nil, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return list.APIResources, nil
}

func versionPath(apiVersion string) []string {
	if !strings.Contains(apiVersion, "/") {
		return []string{"api", apiVersion}
	}
	return append([]string{"apis"}, strings.Split(apiVersion, "/")...)
}

func readAll(r io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(b) > most {
		err = errTooLarge
	}
	return b, err
}
