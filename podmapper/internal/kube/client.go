// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

// Package kube connects to the API server and watches the objects of this node.
//
// It uses the metadata client, the dynamic client and the reflector of client-go.
// It must not import typed clients or informers, which cost several MiB of memory.
// What the objects mean is up to its callers.
package kube

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"gpu_exporter/podmapper/internal/poll"
)

// DefaultTimeout is for Access.
const DefaultTimeout = 30 * time.Second

// Access describes how to reach the API server.
type Access struct {
	// Kubeconfig is a file. Empty: the service account of the pod that the process
	// runs in.
	Kubeconfig string
	Node       string        // name of this node in Kubernetes
	UserAgent  string        // empty: client-go's default
	Timeout    time.Duration // of one request, and of the start of a watch; zero: DefaultTimeout
}

// Config reads the kubeconfig, or the service account.
func (a Access) Config() (*rest.Config, error) {
	var c *rest.Config
	var err error
	if a.Kubeconfig == "" {
		if c, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("reading the service account: %w", err)
		}
	} else if err = checkRegular(a.Kubeconfig); err != nil {
		return nil, fmt.Errorf("reading kubeconfig: %w", err)
	} else if c, err = clientcmd.BuildConfigFromFlags("", a.Kubeconfig); err != nil {
		return nil, fmt.Errorf("reading kubeconfig %s: %w", a.Kubeconfig, err)
	}
	c.UserAgent = cmp.Or(a.UserAgent, rest.DefaultKubernetesUserAgent())
	c.WarningHandlerWithContext = rest.NoWarnings{}
	c.QPS = -1    // requests are rare; a limit would only delay them
	c.Timeout = 0 // it would end watches
	return c, nil
}

// checkRegular rejects what is not a regular file. client-go would wait for the writer of
// a named pipe, and each connection reads the file again.
func checkRegular(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	return err
}

// Client has the two clients, which share their connections.
type Client struct {
	Metadata metadata.Interface
	Dynamic  dynamic.Interface
	http     *http.Client
	rest     rest.Interface
	timeout  time.Duration
}

// Client makes a client with the current credentials. An error has the reason
// poll.NoConfig.
func (a Access) Client() (*Client, error) {
	c, err := a.client()
	if err != nil {
		return nil, poll.WithReason(poll.NoConfig, fmt.Errorf("preparing the connection to the API server: %w", err))
	}
	return c, nil
}

func (a Access) client() (*Client, error) {
	if a.Node == "" {
		return nil, errors.New("the name of this node is not known")
	}
	config, err := a.Config()
	if err != nil {
		return nil, err
	}
	c := &Client{timeout: cmp.Or(a.Timeout, DefaultTimeout)}
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, err
	}
	if c.Metadata, err = metadata.NewForConfigAndClient(metadata.ConfigFor(config), c.http); err != nil {
		return nil, err
	}
	if c.rest, err = rest.UnversionedRESTClientForConfigAndClient(metadata.ConfigFor(config), c.http); err != nil {
		return nil, err
	}
	c.Dynamic, err = dynamic.NewForConfigAndClient(dynamic.ConfigFor(config), c.http)
	return c, err
}

// Close closes idle connections.
func (c *Client) Close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }

// WithReason adds the reason to an error of a client.
func WithReason(err error) error {
	var status apierrors.APIStatus
	var request *url.Error
	switch {
	case apierrors.HasStatusCause(err, "ClientWatchDecoding"):
		return poll.WithReason(poll.Malformed, err)
	case errors.As(err, &status):
		return poll.WithReason(poll.HTTPReason(int(status.Status().Code)), err)
	case poll.ReasonOf(err) == poll.Other && !errors.As(err, &request):
		return poll.WithReason(poll.Malformed, err) // it is about the content of an answer
	}
	return err
}
