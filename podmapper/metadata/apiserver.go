// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// How long to wait after a failure of the API server. A node is one of
// thousands that may be waiting.
const (
	apiMinDelay = time.Second
	apiMaxDelay = time.Minute
)

// watchTime is for how long the server is asked to keep a watch; up to twice
// that, so that the watches of many nodes do not all end at the same time.
const watchTime = 5 * time.Minute

// apiServer lists and watches the pods of a node in the API server.
type apiServer struct {
	rest    func() (*rest.Config, error)
	node    string
	timeout time.Duration
	delay   backoff
	decoder *decoder
	owners  *owners                // nil: workloads are not asked for
	report  func([]*record, error) // all pods, or what went wrong
	oddity  func(error)            // something that costs one pod only
	shelf   *shelf

	client *apiClient // nil: to be made
	full   map[string]complete
	// version is the resource version to watch from; empty if the pods have to
	// be listed.
	version string
	// consistent says that a list has to be of the newest state.
	consistent bool
}

// complete is what was made of a record.
type complete struct{ of, record *record }

// run follows the pods until ctx ends.
func (s *apiServer) run(ctx context.Context) {
	defer s.disconnect()
	for {
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		var after time.Duration
		switch {
		case errors.Is(err, errExpired):
			// The server does not remember what it told us last. That is routine
			// after a while without news.
			s.version, s.consistent = "", true
		case err != nil:
			var f *failure
			if errors.As(err, &f) {
				after = f.after
			}
			s.report(nil, err)
			s.disconnect() // credentials are read again
		}
		if !s.delay.wait(ctx, after) {
			return
		}
	}
}

func (s *apiServer) disconnect() {
	if s.client != nil {
		s.client.close()
		s.client = nil
	}
}

// follow brings the pods up to date and follows their changes for one watch.
// That the watch ends is no error; the next one goes on from there.
func (s *apiServer) follow(ctx context.Context) error {
	if err := s.connect(); err != nil {
		return err
	}
	if s.version == "" {
		if err := s.list(ctx); err != nil {
			return fmt.Errorf("listing the pods of node %s: %w", s.node, err)
		}
	}
	if err := s.watch(ctx); err != nil {
		return fmt.Errorf("watching the pods of node %s: %w", s.node, err)
	}
	return nil
}

func (s *apiServer) connect() error {
	if s.client != nil {
		return nil
	}
	if s.node == "" {
		return failed(ReasonNoConfig, "the name of this node is not known")
	}
	config, err := s.rest()
	if err == nil {
		s.client, err = newAPIClient(config, s.timeout)
	}
	if err != nil {
		return failed(ReasonNoConfig, "preparing the connection to the API server: %w", err)
	}
	return nil
}

func (s *apiServer) list(ctx context.Context) error {
	s.shelf.begin()
	version, err := s.client.list(ctx, s.node, s.consistent, func(b []byte) error {
		o, err := s.decoder.pod(b)
		if err != nil {
			s.oddity(fmt.Errorf("reading a pod from the API server: %w", err))
			return nil
		}
		s.shelf.put(o)
		return nil
	})
	if err != nil {
		return err
	}
	s.shelf.end(time.Now())
	s.version, s.consistent = version, false
	return nil
}

// watch follows changes until the watch ends. Pods that were only listed are not
// reported: nobody could tell for how long they are right.
func (s *apiServer) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	defer reader.Wait() // it uses the decoder
	defer cancel()
	stream, err := s.client.watch(ctx, s.node, s.version, watchTime+rand.N(watchTime))
	if err != nil {
		return err
	}
	begun := time.Now()
	changes, ended := make(chan change), make(chan error, 1)
	reader.Go(func() {
		defer stream.close()
		ended <- s.read(ctx, stream, changes)
	})
	for {
		var again <-chan time.Time
		if pending := s.publish(ctx); pending > 0 {
			again = time.After(pending)
		}
		select {
		case c := <-changes:
			s.apply(c)
		case <-again:
		case err := <-ended:
			// Some servers let a watch begin that they cannot keep.
			if time.Since(begun) < s.delay.min {
				return cut(err)
			}
			s.delay.reset()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// change is an event of a watch, taken apart.
type change struct {
	kind string
	object
}

// read passes on the events of a watch until it ends.
func (s *apiServer) read(ctx context.Context, stream *answer, changes chan<- change) error {
	events := watchReader{r: bufio.NewReaderSize(stream, readBuffer)}
	for {
		e, err := events.next()
		if err != nil {
			return err
		}
		take := s.decoder.pod
		if e.kind == eventBookmark {
			take = s.decoder.object // it has nothing but a resource version
		}
		o, err := take(e.object)
		if err != nil {
			s.oddity(fmt.Errorf("reading a pod from the API server: %w", err))
			continue
		}
		select {
		case changes <- change{kind: e.kind, object: o}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *apiServer) apply(c change) {
	switch c.kind {
	case eventAdded, eventModified:
		s.shelf.put(c.object)
	case eventDeleted:
		s.shelf.remove(c.pod.UID, time.Now())
	}
	if c.resourceVersion != "" {
		s.version = c.resourceVersion
	}
}

// publish reports the pods with their workloads. It says after what time to do
// it again, as some workloads are not known yet; 0 if all are.
func (s *apiServer) publish(ctx context.Context) (again time.Duration) {
	records := s.shelf.sorted(time.Now())
	if s.owners != nil {
		again = s.owners.find(ctx, s.client, records)
		if ctx.Err() != nil {
			return 0
		}
		// A record stays the same as long as its pod and its workload do.
		full := make(map[string]complete, len(records))
		for i, r := range records {
			c, w := s.full[r.pod.UID], s.owners.top(r)
			if c.of != r || c.record.pod.Workload != w {
				c = complete{of: r, record: r.with(w)}
			}
			full[r.pod.UID], records[i] = c, c.record
		}
		s.full = full
	}
	s.report(records, nil)
	return again
}
