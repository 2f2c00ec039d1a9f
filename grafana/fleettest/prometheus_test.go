// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package fleettest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/protobuf/encoding/protowire"

	"gpu_exporter/cmd/gpu_exporter/exportertest"
)

// prometheus is a real Prometheus that receives its samples by remote write.
type prometheus struct {
	*exportertest.Server
	t *testing.T
}

func startPrometheus(t *testing.T) prometheus {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	// The records are written after the series from which they are computed.
	if err := os.WriteFile(config, []byte("storage: {tsdb: {out_of_order_time_window: 1y}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := prometheus{t: t, Server: exportertest.Start(t, nil, exportertest.Built(t, "tools", "prometheus"), "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--storage.tsdb.retention.time=10y", "--web.enable-remote-write-receiver",
		"--web.listen-address=127.0.0.1:0", "--query.timeout="+exportertest.Patience.String())}
	p.Ready(t)
	return p
}

// in returns the server for a subtest.
func (p prometheus) in(t *testing.T) prometheus {
	p.t = t
	return p
}

// series is one series with its samples.
type series struct {
	labels  map[string]string
	samples []sample
}

type sample struct {
	at    time.Time
	value float64
}

// stale marks the end of a series, as Prometheus does.
func stale() float64 { return math.Float64frombits(0x7ff0000000000002) }

// write sends series by remote write 1.0.
func (p prometheus) write(all []series) {
	p.t.Helper()
	const batch = 5000
	for len(all) > 0 {
		n := min(batch, len(all))
		var request []byte
		for _, s := range all[:n] {
			request = protowire.AppendTag(request, 1, protowire.BytesType)
			request = protowire.AppendBytes(request, encode(s))
		}
		all = all[n:]
		p.post(s2.EncodeSnappy(nil, request))
	}
}

func encode(s series) []byte {
	names := make([]string, 0, len(s.labels))
	for name, value := range s.labels {
		if value != "" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var message []byte
	for _, name := range names {
		label := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
		label = protowire.AppendString(protowire.AppendTag(label, 2, protowire.BytesType), s.labels[name])
		message = protowire.AppendBytes(protowire.AppendTag(message, 1, protowire.BytesType), label)
	}
	for _, v := range s.samples {
		b := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(v.value))
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(v.at.UnixMilli()))
		message = protowire.AppendBytes(protowire.AppendTag(message, 2, protowire.BytesType), b)
	}
	return message
}

func (p prometheus) post(body []byte) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://"+p.Address+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(resp.Body)
		p.t.Fatalf("remote write: %s: %s", resp.Status, text)
	}
}

// api returns the data of an answer of the API.
func (p prometheus) api(path string, parameters url.Values, into any) error {
	body, err := p.Get(p.t.Context(), "/api/v1/"+path+"?"+parameters.Encode())
	if err != nil {
		return err
	}
	answer := struct{ Data any }{into}
	return json.Unmarshal(body, &answer)
}

// result is a series of the result of a query.
type result struct {
	Metric map[string]string
	Value  value
	Values []value
}

type value sample

func (v *value) UnmarshalJSON(text []byte) error {
	var pair [2]any
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	seconds, ok1 := pair[0].(float64)
	number, ok2 := pair[1].(string)
	if !ok1 || !ok2 {
		return fmt.Errorf("not a sample: %s", text)
	}
	f, err := strconv.ParseFloat(number, 64)
	*v = value{time.UnixMilli(int64(math.Round(seconds * 1000))), f}
	return err
}

func (p prometheus) results(path string, parameters url.Values) ([]result, error) {
	var data struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := p.api(path, parameters, &data); err != nil {
		return nil, err
	}
	if data.ResultType == "scalar" {
		r := make([]result, 1)
		return r, json.Unmarshal(data.Result, &r[0].Value)
	}
	var r []result
	return r, json.Unmarshal(data.Result, &r)
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// instant evaluates a query at a time.
func (p prometheus) instant(query string, at time.Time) ([]result, error) {
	return p.results("query", url.Values{"query": {query}, "time": {seconds(at)}})
}

// span evaluates a query over a period.
func (p prometheus) span(query string, from, to time.Time, step time.Duration) ([]result, error) {
	return p.results("query_range", url.Values{
		"query": {query}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	})
}

// labelsOf splits the labels of a point.
func labelsOf(p point, target map[string]string) map[string]string {
	labels := map[string]string{"__name__": p.name}
	for key, v := range target {
		labels[key] = v
	}
	parts := strings.Split(p.labels, "\x00")
	for i := 0; i+1 < len(parts); i += 2 {
		if _, taken := target[parts[i]]; taken {
			labels["exported_"+parts[i]] = parts[i+1]
			continue
		}
		labels[parts[i]] = parts[i+1]
	}
	return labels
}
