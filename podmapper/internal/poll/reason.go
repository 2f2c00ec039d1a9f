// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package poll

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason is the cause of a failure in one word: a label value in metrics.
type Reason string

// The reasons that several sources share. A source can define further ones.
const (
	NoSocket     Reason = "no_socket"    // the socket does not exist
	NotFound     Reason = "not_found"    // a file, directory or object does not exist
	NoConfig     Reason = "no_config"    // the address or the credentials are not known
	Forbidden    Reason = "forbidden"    // no permission
	Unauthorized Reason = "unauthorized" // the credentials are rejected
	Unavailable  Reason = "unavailable"  // no connection, or a server error
	Timeout      Reason = "timeout"      // no answer in time
	RateLimited  Reason = "rate_limited" // the server receives too many requests
	Unsupported  Reason = "unsupported"  // the server does not have this API
	TooLarge     Reason = "too_large"    // an answer exceeds its bound
	Malformed    Reason = "malformed"    // an answer cannot be decoded
	Other        Reason = "other"
)

// reasonError is an error with a known reason.
type reasonError struct {
	error
	reason Reason
}

func (e *reasonError) Unwrap() error { return e.error }

// WithReason returns an error for which ReasonOf returns r.
func WithReason(r Reason, err error) error { return &reasonError{err, r} }

// ReasonOf returns the reason of an error: that of WithReason, or that of an error
// of gRPC, the network, the file system or encoding/json.
func ReasonOf(err error) Reason {
	var (
		known       *reasonError
		rpc         interface{ GRPCStatus() *status.Status }
		certificate *tls.CertificateVerificationError
		dial        *net.OpError
		network     net.Error
		syntax      *json.SyntaxError
		mistyped    *json.UnmarshalTypeError
		tooLarge    *http.MaxBytesError
	)
	switch {
	case errors.As(err, &known):
		return known.reason
	case errors.As(err, &rpc):
		return rpcReason(rpc.GRPCStatus())
	case errors.As(err, &tooLarge):
		return TooLarge
	case errors.As(err, &syntax), errors.As(err, &mistyped),
		strings.Contains(err.Error(), "malformed HTTP"): // net/http has no type for it
		return Malformed
	case errors.As(err, &certificate):
		return Other
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return Timeout
	case errors.Is(err, fs.ErrPermission):
		return Forbidden
	case errors.Is(err, fs.ErrNotExist):
		if errors.As(err, &dial) {
			return NoSocket
		}
		return NotFound
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Unavailable
	}
	return Other
}

func rpcReason(s *status.Status) Reason {
	switch s.Code() {
	case codes.Unavailable:
		return Unavailable
	case codes.DeadlineExceeded, codes.Canceled:
		return Timeout
	case codes.ResourceExhausted:
		// The server's rate limit and grpc-go's own receive limit have the same code.
		if strings.Contains(s.Message(), "larger than max") {
			return TooLarge
		}
		return RateLimited
	case codes.Internal:
		if strings.Contains(s.Message(), "failed to unmarshal") {
			return Malformed
		}
	case codes.Unimplemented:
		return Unsupported
	case codes.PermissionDenied:
		return Forbidden
	case codes.Unauthenticated:
		return Unauthorized
	case codes.NotFound:
		return NotFound
	}
	return Other
}

// HTTPReason returns the reason of an HTTP status that is not a success.
func HTTPReason(code int) Reason {
	switch {
	case code == http.StatusUnauthorized:
		return Unauthorized
	case code == http.StatusForbidden:
		return Forbidden
	case code == http.StatusNotFound:
		return NotFound
	case code == http.StatusNotAcceptable, code == http.StatusUnsupportedMediaType, code == http.StatusMethodNotAllowed:
		return Unsupported
	case code == http.StatusTooManyRequests:
		return RateLimited
	case code == http.StatusGatewayTimeout, code == http.StatusRequestTimeout:
		return Timeout
	case code >= http.StatusInternalServerError:
		return Unavailable
	}
	return Other
}
