// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package poll

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestReasonOf(t *testing.T) {
	_, noSocket := net.Dial("unix", filepath.Join(t.TempDir(), "none.sock"))
	_, noFile := os.Open(filepath.Join(t.TempDir(), "none"))
	var number int
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", err)}
	}
	for _, tc := range []struct {
		err  error
		want Reason
	}{
		{noSocket, NoSocket},
		{noFile, NotFound},
		{dial(syscall.EACCES), Forbidden},
		{dial(syscall.ECONNREFUSED), Unavailable},
		{&url.Error{Op: "Get", URL: "http://x", Err: dial(syscall.ENOENT)}, NoSocket},
		{&url.Error{Op: "Get", URL: "http://x", Err: io.EOF}, Unavailable},
		{&url.Error{Op: "Get", URL: "http://x", Err: context.DeadlineExceeded}, Timeout},
		{&url.Error{Op: "Get", URL: "https://x", Err: &tls.CertificateVerificationError{}}, Other},
		{errors.New(`malformed HTTP response "SSH"`), Malformed},
		{io.ErrUnexpectedEOF, Unavailable},
		{context.DeadlineExceeded, Timeout},
		{os.ErrDeadlineExceeded, Timeout},
		{fs.ErrPermission, Forbidden},
		{json.Unmarshal([]byte("{"), &number), Malformed},
		{json.Unmarshal([]byte(`"x"`), &number), Malformed},
		{&http.MaxBytesError{Limit: 1}, TooLarge},
		{status.Error(codes.Unavailable, ""), Unavailable},
		{status.Error(codes.DeadlineExceeded, ""), Timeout},
		{status.Error(codes.Canceled, ""), Timeout},
		{status.Error(codes.ResourceExhausted, "rejected by rate limit"), RateLimited},
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), TooLarge},
		{status.Error(codes.Internal, "grpc: failed to unmarshal the received message: proto: x"), Malformed},
		{status.Error(codes.Internal, "broken"), Other},
		{status.Error(codes.Unimplemented, ""), Unsupported},
		{status.Error(codes.PermissionDenied, ""), Forbidden},
		{status.Error(codes.Unauthenticated, ""), Unauthorized},
		{status.Error(codes.NotFound, ""), NotFound},
		{WithReason(NoConfig, io.EOF), NoConfig},
		{errors.New("whatever"), Other},
	} {
		err := fmt.Errorf("doing something: %w", tc.err)
		if got := ReasonOf(err); got != tc.want {
			t.Errorf("%v: %s, want %s", err, got, tc.want)
		}
	}
	if err := WithReason(NoConfig, io.EOF); !errors.Is(err, io.EOF) || err.Error() != io.EOF.Error() {
		t.Errorf("WithReason changes the error: %v", err)
	}
}

func TestHTTPReason(t *testing.T) {
	for code, want := range map[int]Reason{
		401: Unauthorized, 403: Forbidden, 404: NotFound, 405: Unsupported, 406: Unsupported, 408: Timeout,
		415: Unsupported, 418: Other, 429: RateLimited, 500: Unavailable, 503: Unavailable, 504: Timeout,
	} {
		if got := HTTPReason(code); got != want {
			t.Errorf("%d: %s, want %s", code, got, want)
		}
	}
}
