// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a server says of an error is told, in whatever form it comes, and so is
// for how long it wants to be left alone.
func TestStatusError(t *testing.T) {
	status := string(envelope(t, kindStatus, &metav1.Status{Message: "pods is forbidden", Code: 403}))
	for _, tc := range []struct {
		name, body, retryAfter string
		code                   int
		want                   string
		reason                 Reason
		after                  time.Duration
	}{
		{"protobuf", status, "", 403, "the API server says 403 Forbidden: pods is forbidden", ReasonForbidden, 0},
		{"JSON", `{"kind":"Status","message":"pods is forbidden"}`, "", 403, "the API server says 403 Forbidden: pods is forbidden", ReasonForbidden, 0},
		{"nothing", "", "7", 429, "the API server says 429 Too Many Requests", ReasonRateLimited, 7 * time.Second},
		{"HTML", "<html>", "soon", 502, "the API server says 502 Bad Gateway", ReasonUnavailable, 0},
		{"too long a time", "", "86400", 503, "the API server says 503 Service Unavailable", ReasonUnavailable, maxRetryAfter},
		{"too long a text", `{"message":"` + strings.Repeat("é", 300) + `"}`, "", 500,
			"the API server says 500 Internal Server Error: " + strings.Repeat("é", 150) + "…", ReasonUnavailable, 0},
		{"too old", "", "", 410, "the resource version is too old: the API server says 410 Gone", ReasonOther, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			if tc.retryAfter != "" {
				w.Header().Set("Retry-After", tc.retryAfter)
			}
			http.Error(w, tc.body, tc.code)
			w.Body.Truncate(len(tc.body)) // without http.Error's line feed
			err := statusError(w.Result())
			var f *failure
			if !errors.As(err, &f) || err.Error() != tc.want || reasonOf(err) != tc.reason || f.after != tc.after {
				t.Errorf("%q, %s, %+v", err, reasonOf(err), f)
			}
			if errors.Is(err, errExpired) != (tc.code == http.StatusGone) {
				t.Errorf("expired: %v", err)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: time.Second, max: 5 * time.Second}
	for _, want := range []time.Duration{1, 2, 4, 5, 5} {
		want *= time.Second
		if got := b.delay(); got < want/2 || got >= want*3/2 {
			t.Errorf("%s, want about %s", got, want)
		}
	}
	b.reset()
	if got := b.delay(); got >= 1500*time.Millisecond {
		t.Errorf("%s after a success", got)
	}
}
