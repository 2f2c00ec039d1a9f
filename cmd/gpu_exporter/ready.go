// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
)

// readyTimeout bounds the request of the command ready. It is shorter than the 10 s after
// which the health check of a container counts as failed.
const readyTimeout = 5 * time.Second

// ready prints whether the exporter at a base URL is ready, and returns the exit status.
// Containers have no curl.
func ready(ctx context.Context, exporter string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	status, body, err := fetch(ctx, strings.TrimSuffix(exporter, "/")+"/-/ready")
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: querying the exporter: %v\n", config.ProgramName, err)
		return 1
	}
	if status != http.StatusOK {
		fmt.Fprintf(stderr, "%s: error: status %d: %s\n", config.ProgramName, status, body)
		return 1
	}
	fmt.Fprintln(stdout, body)
	return 0
}

// fetch returns the status and the first KiB of the body of a response.
func fetch(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	return response.StatusCode, strings.TrimSpace(string(text)), err
}
